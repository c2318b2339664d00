"""Model directories that others made: what is known to be wrong with them, and how it is mended.

Read and written as data: no code of a directory is ever run. One module for each kind of ill; `examine` is
the way in.
"""
