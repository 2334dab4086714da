"""Where samples come from: GNT files and class folders of pictures, on disk or in a zip, HDF5 files, drawn writers.

`find` recognises what lies in some paths and returns a `Corpus` of `Partition`s; each yields `Sample`s and the
`Damage` between them. Nothing here resizes or labels a picture; that is the packer's.
"""
