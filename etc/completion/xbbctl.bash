# Completion of xbbctl(8), xbbd(8) and xbbstat(8) for bash.  Put it where
# bash-completion looks, as /usr/local/share/bash-completion/completions/xbbctl,
# with the other two as links, or source it.
#
# Names and disks are asked of the daemon that the line names by --host and
# --state-dir.  Names are completed part by part, as paths are.

# Written by write.py from here
_xbbctl_verbs='list attach detach pause resume swap inflight log resize clear health reload help'

# The options of a command and verb.
_xbb_options()
{
	case $1,$2 in
	xbbctl,) echo '-a -d -e -f -h -i -j -N -n -q -t -W -T --help --host --state-dir --version' ;;
	xbbctl,names) echo '-d -e -f -h -i -j -N -n -q -t -W -T --help --host --state-dir' ;;
	xbbctl,list) echo '--help --host --state-dir -j -v' ;;
	xbbctl,attach) echo '--help --host --state-dir -j --limit --mode --kind --cdrom --no-discard --on-error --on-full --limit-group' ;;
	xbbctl,detach) echo '--help --host --state-dir -j --force --limit' ;;
	xbbctl,pause) echo '--help --host --state-dir -j' ;;
	xbbctl,resume) echo '--help --host --state-dir -j' ;;
	xbbctl,swap) echo '--help --host --state-dir -j' ;;
	xbbctl,inflight) echo '--help --host --state-dir -j' ;;
	xbbctl,log) echo '--help --host --state-dir -j -f -n' ;;
	xbbctl,resize) echo '--help --host --state-dir -j' ;;
	xbbctl,clear) echo '--help --host --state-dir -j' ;;
	xbbctl,health) echo '--help --host --state-dir -j -v --age' ;;
	xbbctl,reload) echo '--help --host --state-dir -j' ;;
	xbbctl,help) echo '--help --host --state-dir -j' ;;
	xbbd,) echo '-h --help -d -S -f -t --host --report --version' ;;
	xbbstat,) echo '-h --help -x -i -b -B -C -j -I -d -o -l -v -z -a -n -t -f -s -w -c --host --state-dir --version' ;;
	esac
}

# The kind of what follows an option, if anything does.
_xbb_takes()
{
	case $1,$2,$3 in
	xbbctl,,-f | xbbctl,names,-f) echo 'file' ;;
	xbbctl,,--host | xbbctl,names,--host) echo 'spec' ;;
	xbbctl,,--state-dir | xbbctl,names,--state-dir) echo 'dir' ;;
	xbbctl,list,--host) echo 'spec' ;;
	xbbctl,list,--state-dir) echo 'dir' ;;
	xbbctl,attach,--host) echo 'spec' ;;
	xbbctl,attach,--state-dir) echo 'dir' ;;
	xbbctl,attach,--limit) echo 'word' ;;
	xbbctl,attach,--mode) echo '=r ro w rw w!' ;;
	xbbctl,attach,--kind) echo '=vbd vbd3' ;;
	xbbctl,attach,--on-error) echo '=report retry pause stop' ;;
	xbbctl,attach,--on-full) echo '=report retry pause stop auto' ;;
	xbbctl,attach,--limit-group) echo 'word' ;;
	xbbctl,detach,--host) echo 'spec' ;;
	xbbctl,detach,--state-dir) echo 'dir' ;;
	xbbctl,detach,--limit) echo 'word' ;;
	xbbctl,pause,--host) echo 'spec' ;;
	xbbctl,pause,--state-dir) echo 'dir' ;;
	xbbctl,resume,--host) echo 'spec' ;;
	xbbctl,resume,--state-dir) echo 'dir' ;;
	xbbctl,swap,--host) echo 'spec' ;;
	xbbctl,swap,--state-dir) echo 'dir' ;;
	xbbctl,inflight,--host) echo 'spec' ;;
	xbbctl,inflight,--state-dir) echo 'dir' ;;
	xbbctl,log,--host) echo 'spec' ;;
	xbbctl,log,--state-dir) echo 'dir' ;;
	xbbctl,log,-n) echo 'word' ;;
	xbbctl,resize,--host) echo 'spec' ;;
	xbbctl,resize,--state-dir) echo 'dir' ;;
	xbbctl,clear,--host) echo 'spec' ;;
	xbbctl,clear,--state-dir) echo 'dir' ;;
	xbbctl,health,--host) echo 'spec' ;;
	xbbctl,health,--state-dir) echo 'dir' ;;
	xbbctl,health,--age) echo 'word' ;;
	xbbctl,reload,--host) echo 'spec' ;;
	xbbctl,reload,--state-dir) echo 'dir' ;;
	xbbctl,help,--host) echo 'spec' ;;
	xbbctl,help,--state-dir) echo 'dir' ;;
	xbbd,*,-f) echo 'file' ;;
	xbbd,*,--host) echo 'spec' ;;
	xbbd,*,--report) echo 'file' ;;
	xbbstat,*,-n) echo 'word' ;;
	xbbstat,*,-t) echo '=da other xbb xbbi xnb' ;;
	xbbstat,*,-f) echo 'word' ;;
	xbbstat,*,-s) echo '=name %busy L(q) ops/s r/s w/s d/s kr/s kw/s kd/s ms/r ms/w ms/d o/s ms/o p50/r p99/r p50/w p99/w e/s' ;;
	xbbstat,*,-w) echo 'word' ;;
	xbbstat,*,-c) echo 'word' ;;
	xbbstat,*,--host) echo 'spec' ;;
	xbbstat,*,--state-dir) echo 'dir' ;;
	esac
}

# The kind of an operand, which are counted from 0.
_xbb_operand()
{
	case $1,$2,$3 in
	xbbctl,,0) echo first ;;
	xbbctl,names,*) echo names ;;
	xbbctl,list,0) echo 'guest' ;;
	xbbctl,attach,0) echo 'word' ;;
	xbbctl,attach,1) echo 'file' ;;
	xbbctl,attach,2) echo 'word' ;;
	xbbctl,detach,0) echo 'guest' ;;
	xbbctl,detach,1) echo 'vdev' ;;
	xbbctl,pause,0) echo 'device' ;;
	xbbctl,resume,0) echo 'device' ;;
	xbbctl,swap,0) echo 'device' ;;
	xbbctl,swap,1) echo 'file' ;;
	xbbctl,inflight,0) echo 'device' ;;
	xbbctl,log,0) echo 'device' ;;
	xbbctl,resize,0) echo 'disk' ;;
	xbbctl,clear,0) echo 'lost' ;;
	xbbctl,health,0) echo 'device' ;;
	xbbctl,help,0) echo '=list attach detach pause resume swap inflight log resize clear health reload help' ;;
	xbbstat,,*) echo 'drive' ;;
	esac
}
# to here.

_xbb()
{
	local command=${1##*/} line=${COMP_LINE:0:COMP_POINT}
	local cur word option= verb= joined kind i
	local -a words asked=() given=()

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
		--*=*) ;;
		--?*)
			[[ -n $(_xbb_takes "$command" "$verb" "$word") ]] &&
			    option=$word ;;
		-?*)
			# Of several letters the first with a value is the last.
			for ((i = 1; i < ${#word}; i++)); do
				[[ -z $(_xbb_takes "$command" "$verb" "-${word:i:1}") ]] &&
				    continue
				((i == ${#word} - 1)) && option=-${word:i:1}
				break
			done ;;
		*)
			if [[ $command != xbbctl || -n $verb ]]; then
				given+=("$word")
			elif [[ " $_xbbctl_verbs " == *" $word "* ]]; then
				verb=$word
			else
				verb=names
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
	if [[ -n $option ]]; then
		kind=$(_xbb_takes "$command" "$verb" "$option")
	elif [[ $cur == -* ]]; then
		word=$(_xbb_options "$command" "$verb")
		_xbb_reply "$(compgen -W "$word" -- "$cur")"
		return
	else
		kind=$(_xbb_operand "$command" "$verb" "${#given[@]}")
	fi
	case $kind in
	spec)
		if [[ $cur == sim:* ]]; then
			compopt -o filenames 2>/dev/null
			_xbb_reply "$(compgen -P sim: -d -- "${cur#sim:}")"
		else
			compopt -o nospace 2>/dev/null
			_xbb_reply "$(compgen -W sim: -- "$cur")"
		fi ;;
	dir)
		compopt -o filenames 2>/dev/null
		_xbb_reply "$(compgen -d -- "$cur")" ;;
	file)
		compopt -o filenames 2>/dev/null
		_xbb_reply "$(compgen -f -- "$cur")" ;;
	=*)
		_xbb_reply "$(compgen -W "${kind#=}" -- "$cur")" ;;
	disk)
		_xbb_reply "$(compgen -W "$(_xbb_list '/^xbbd/ { print $1 }')" -- "$cur")" ;;
	device)
		_xbb_reply "$(compgen -W "$(_xbb_list '{ print $1 }')" -- "$cur")" ;;
	lost)
		compopt -o filenames 2>/dev/null
		_xbb_reply "$(compgen -W "$(_xbb_list '/^xbbd/ { print $1 }')" -- "$cur")
$(compgen -f -- "$cur")" ;;
	guest)
		_xbb_reply "$(compgen -W "$(_xbb_list '{ print $2 }')" -- "$cur")" ;;
	vdev)
		word=$(_xbb_list '$2 == guest { print $3 }' "${given[0]}")
		_xbb_reply "$(compgen -W "$word" -- "$cur")" ;;
	drive)
		word=$(_xbb_list '/^xnb/ { print $1 }
		    sub("^xbbd", "", $1) { print "xbb" $1, "xbbi" $1, "dev.xbbd." $1 }')
		_xbb_reply "$(compgen -W "$word" -- "$cur")" ;;
	first)
		_xbb_reply "$(compgen -W "$_xbbctl_verbs" -- "$cur")
$(_xbb_names)" ;;
	names)
		_xbb_reply "$(_xbb_names)" ;;
	esac
	[[ $kind == first || $kind == names ]] &&
	    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *. ]] &&
	    compopt -o nospace 2>/dev/null
	return 0
}

# Words, one a line, as what there is to choose from.
_xbb_reply()
{
	local word

	while IFS= read -r word; do
		word=${word#"$joined"}
		word=${word//\(/\\(}
		[[ -n $word ]] && COMPREPLY+=("${word//\)/\\)}")
	done <<<"$1"
}

# The next part of every name that begins like $cur.
_xbb_names()
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

# Columns of all disks and cards.
_xbb_list()
{
	xbbctl "${asked[@]}" list 2>/dev/null | awk -v guest="$2" "NR == 1 { next } $1"
}

complete -F _xbb xbbctl xbbd xbbstat
