# Completion of xbbctl(8) for tcsh.  Source it from ~/.tcshrc.
#
# Names and disks are asked of the daemon that the line names by --host and
# --state-dir.  What is asked goes by xargs(1), since backquotes do not nest.

if ( ! $?tcsh ) exit

complete xbbctl \
    'n/-f/f/' \
    'n/--state-dir/d/' \
    'n/--host/(sim:)//' \
    'n/--mode/(r w w\!)/' \
    'n/--kind/(vbd vbd3)/' \
    'n/--limit/x:how many seconds/' \
    'c/--/(cdrom force help host kind limit mode no-discard state-dir version)/' \
    'c/-/(a d e f h i j N n q t T W)/' \
    'n@{inflight,log,resize}@`( printenv COMMAND_LINE | grep -oE -e "--(host|state-dir)[ =][^ ]+"; echo list ) | xargs xbbctl |& grep -oE "^xbbd[0-9]+"`@' \
    'n/{list,reload}/x:nothing follows/' \
    'n/clear/f/' \
    'n/{attach,detach}/x:name or number of the guest/' \
    'N/attach/f/' \
    'N/detach/x:name of the disk in the guest/' \
    'p@*@`( echo list; echo attach; echo detach; echo inflight; echo log; echo resize; echo clear; echo reload; ( printenv COMMAND_LINE | grep -oE -e "--(host|state-dir)[ =][^ ]+"; echo " -aN" ) | xargs xbbctl |& grep -E "^(dev|hw)[.]" )`@'
