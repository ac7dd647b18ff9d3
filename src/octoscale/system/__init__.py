"""What the machine gives, and what may go wrong with it: files, folders, streams, memory, and how a command ends.

    whole_file      a file is whole or not there
    whole_folder    so is a checkpoint's folder, and it replaces only what octoscale wrote
    manifest        the list of files that octoscale wrote in a folder
    lock            one writer to a folder
    inside          a link out of a folder is not followed
    terms           what decides a result, kept beside it, so that a stopped command goes on under the same terms only
    checksums       whether a file of a folder has changed
    printable       text from strangers, as a terminal may show it
    streams         standard streams that were closed before a command began
    errors          UserError: what its user can mend
    explained       a mistake that its user can mend, or a defect that we must
    held            a change that the whole process shares, and that the last holder undoes
    settings        a setting is stated once: default, help, and how the command line spells it
    machine         which machine this is
    documents       where the site of docs/ is
    ranks           which process this is of those that were started together
    waiting         how long idle threads spin
    heap            what becomes of memory that is not needed any more

Nothing here knows what FP8 is, and nothing here imports torch.
"""
