"""What a run leaves behind: a folder whose files are whole at any moment.

    folder          its layout; how a run is made, opened and appended to
    cells           results of a long command, one file each, to go on from after a kill
    scales          one row a tensor a step: the columns, the Recorder that writes them, how they are read again
    notes           what a diagnosis needs beside rows: which layers there are, stale casts, loss scales
    scale_bias      which scale each layer had, by depth and by step
    parts           parquet files with a checksum inside
    files           which files of a folder are ours, so that --overwrite deletes no other

A new column of the records is a line of SCHEMA in scales.py. Nothing here knows a model.
"""
