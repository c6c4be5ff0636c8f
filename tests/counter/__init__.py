"""A second family, complete and of no use: a counter that a guest rings.

It shows what a family is made of, and that it is added with files of its own.  Kind and
driver are "counter" and "xcount".  Of the product these are changed for one:
families.py (its line in ENTRIES), config.py (its kind, and a section if it has
keys), native/build.py (its C files, if it has any).  __main__.py is xbbd with this family;
a family of the product has the same files in a package beside block/.

    names.py       what there is to see of a counter, and to do to it
    negotiate.py   what its guest and we tell each other
    queue.py       its data path, which is counter.c, on native/core and native/hv
    family.py      what joins them, and the line of the registry
    guest.py       the other end
"""
