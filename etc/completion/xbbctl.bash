# Completion of xbbctl(8) for bash.  Put it where bash-completion looks, as
# /usr/local/share/bash-completion/completions/xbbctl, or source it.
#
# Names and disks are asked of the daemon that the line names by --host and
# --state-dir.  Names are completed part by part, as paths are.

_xbbctl()
{
	local line=${COMP_LINE:0:COMP_POINT} cur word option= verb= joined
	local -a words asked=() given=()
	local common="-j --help --host --state-dir"

	# Not COMP_WORDS, which bash cuts at = and : too.
	read -r -a words <<<"$line"
	[[ $line == *[[:space:]] ]] && words+=("")
	cur=${words[${#words[@]} - 1]}

	for word in "${words[@]:1:${#words[@]} - 2}"; do
		if [[ -n $option ]]; then
			[[ $option == --host || $option == --state-dir ]] &&
			    asked+=("$option" "$word")
			option=
			continue
		fi
		case $word in
		--host=* | --state-dir=*)
			asked+=("$word") ;;
		--host | --state-dir | --limit | --mode | --kind)
			option=$word ;;
		--*) ;;
		-*f)
			option=-f ;;
		-*) ;;
		list | attach | detach | inflight | log | resize | clear | reload)
			if [[ -z $verb ]]; then
				verb=$word
			else
				given+=("$word")
			fi ;;
		*)
			if [[ -z $verb ]]; then
				verb=names
			else
				given+=("$word")
			fi ;;
		esac
	done

	# Bash replaces only what follows the last = or :.
	joined=${cur%"${cur##*[=:]}"}
	if [[ -z $option && $cur == --*=* ]]; then
		option=${cur%%=*}
		cur=${cur#*=}
		joined=${joined#"$option="}
	fi

	COMPREPLY=()
	case $option in
	--host)
		if [[ $cur == sim:* ]]; then
			compopt -o filenames 2>/dev/null
			_xbbctl_reply "$(compgen -P sim: -d -- "${cur#sim:}")"
		else
			compopt -o nospace 2>/dev/null
			_xbbctl_reply "$(compgen -W sim: -- "$cur")"
		fi
		return ;;
	--state-dir)
		compopt -o filenames 2>/dev/null
		_xbbctl_reply "$(compgen -d -- "$cur")"
		return ;;
	-f)
		compopt -o filenames 2>/dev/null
		_xbbctl_reply "$(compgen -f -- "$cur")"
		return ;;
	--mode)
		_xbbctl_reply "$(compgen -W 'r w w!' -- "$cur")"
		return ;;
	--kind)
		_xbbctl_reply "$(compgen -W 'vbd vbd3' -- "$cur")"
		return ;;
	--limit)
		return ;;
	esac

	if [[ $cur == -* ]]; then
		case $verb in
		'')
			word="-a -d -e -f -h -i -N -n -q -t -T -W $common --version" ;;
		names)
			word="-d -e -f -h -i -N -n -q -t -T -W $common" ;;
		attach)
			word="$common --cdrom --kind --limit --mode --no-discard" ;;
		detach)
			word="$common --force --limit" ;;
		*)
			word=$common ;;
		esac
		_xbbctl_reply "$(compgen -W "$word" -- "$cur")"
		return
	fi

	case $verb,${#given[@]} in
	attach,1)
		compopt -o filenames 2>/dev/null
		_xbbctl_reply "$(compgen -f -- "$cur")" ;;
	detach,0)
		_xbbctl_reply "$(compgen -W "$(_xbbctl_list '{ print $2 }')" -- "$cur")" ;;
	detach,1)
		word=$(_xbbctl_list '$2 == guest { print $3 }' "${given[0]}")
		_xbbctl_reply "$(compgen -W "$word" -- "$cur")" ;;
	clear,0)
		compopt -o filenames 2>/dev/null
		_xbbctl_reply "$(compgen -W "$(_xbbctl_list '{ print $1 }')" -- "$cur")
$(compgen -f -- "$cur")" ;;
	inflight,0 | log,0 | resize,0)
		_xbbctl_reply "$(compgen -W "$(_xbbctl_list '{ print $1 }')" -- "$cur")" ;;
	,0)
		_xbbctl_reply "$(compgen -W 'list attach detach inflight log resize clear reload' -- "$cur")
$(_xbbctl_names)" ;;
	names,*)
		_xbbctl_reply "$(_xbbctl_names)" ;;
	esac
	[[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *. && -z ${given[0]} ]] &&
	    compopt -o nospace 2>/dev/null
	return 0
}

# Words, one a line, as what there is to choose from.
_xbbctl_reply()
{
	local word

	while IFS= read -r word; do
		[[ -n $word ]] && COMPREPLY+=("${word#"$joined"}")
	done <<<"$1"
}

# The next part of every name that begins like $cur.
_xbbctl_names()
{
	[[ $cur == *=* ]] && return
	xbbctl "${asked[@]}" -aN 2>/dev/null | awk -v cur="$cur" '
	index($0, cur) == 1 {
		rest = substr($0, length(cur) + 1)
		dot = index(rest, ".")
		part = dot ? cur substr(rest, 1, dot) : $0
		if (!seen[part]++)
			print part
	}'
}

# Columns of all disks.
_xbbctl_list()
{
	xbbctl "${asked[@]}" list 2>/dev/null | awk -v guest="$2" "NR == 1 { next } $1"
}

complete -F _xbbctl xbbctl
