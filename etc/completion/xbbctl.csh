# Completion of xbbctl(8), xbbd(8) and xbbstat(8) for tcsh.  Source it from ~/.tcshrc.
#
# Names and disks are asked of the daemon that the line names by --host and
# --state-dir.  What is asked goes by xargs(1), since backquotes do not nest.

if ( ! $?tcsh ) exit

# Written by write.py from here
complete xbbctl \
    'n@-f@f@' \
    'n@--host@(sim:)@@' \
    'n@--state-dir@d@' \
    'n@--limit@x:seconds@' \
    'n@--mode@(r ro w rw w\!)@' \
    'n@--kind@(vbd vbd3)@' \
    'n@--on-error@(report retry pause stop)@' \
    'n@--on-full@(report retry pause stop auto)@' \
    'n@--limit-group@x:name@' \
    'n@--age@x:seconds@' \
    'c@--@(age cdrom force help host kind limit limit-group mode no-discard on-error on-full state-dir version)@' \
    'c@-@(a d e f h i j N n q T t v W)@' \
    'n@list@x:guest@' \
    'n@{attach,detach}@x:name or number of the guest@' \
    'n@{pause,resume,swap,inflight,log,health}@`( printenv COMMAND_LINE | grep -oE -e "--(host|state-dir)[ =][^ ]+"; echo list ) | xargs xbbctl |& grep -oE "^x(bbd|nb)[0-9]+"`@' \
    'n@resize@`( printenv COMMAND_LINE | grep -oE -e "--(host|state-dir)[ =][^ ]+"; echo list ) | xargs xbbctl |& grep -oE "^xbbd[0-9]+"`@' \
    'n@clear@f@' \
    'n@reload@x:nothing follows@' \
    'n@help@(list attach detach pause resume swap inflight log resize clear health reload help)@' \
    'N@attach@f@' \
    'N@detach@x:name of the disk or card in the guest@' \
    'N@swap@f@' \
    'p@*@`( echo list; echo attach; echo detach; echo pause; echo resume; echo swap; echo inflight; echo log; echo resize; echo clear; echo health; echo reload; echo help; ( printenv COMMAND_LINE | grep -oE -e "--(host|state-dir)[ =][^ ]+"; echo " -aN" ) | xargs xbbctl |& grep -E "^(dev|hw)[.]" )`@'

complete xbbd \
    'n@-f@f@' \
    'n@--host@(sim:)@@' \
    'n@--report@f@' \
    'c@--@(help host report version)@' \
    'c@-@(d f h S t)@' \
    'p@*@x:no more than options@'

complete xbbstat \
    'n@-n@x:devs@' \
    'n@-t@(da other xbb xbbi xnb)@' \
    'n@-f@x:regex@' \
    'n@-s@(name %busy ops/s r/s w/s d/s kr/s kw/s kd/s ms/r ms/w ms/d o/s ms/o p50/r p99/r p50/w p99/w e/s)@' \
    'n@-w@x:seconds@' \
    'n@-c@x:count@' \
    'n@--host@(sim:)@@' \
    'n@--state-dir@d@' \
    'c@--@(help host state-dir version)@' \
    'c@-@(a B b C c d f h I i j l n o s t v w x z)@' \
    'p@*@`( printenv COMMAND_LINE | grep -oE -e "--(host|state-dir)[ =][^ ]+"; echo list ) | xargs xbbctl |& sed -n -e "s=^xbbd\([0-9]*\) .*=xbb\1 xbbi\1 dev.xbbd.\1=p" -e "s=^\(xnb[0-9]*\) .*=\1=p"`@'
# to here.
