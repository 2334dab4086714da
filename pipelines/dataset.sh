#!/bin/sh
# The data set that the commands use when nothing is named: CASIA where it lies in data/raw, else a drawn corpus of all of
# GB2312 level 1. What is finished is kept.
set -e
if [ -z "$(ls data/raw 2>/dev/null | grep -v -x -e README.md -e drawn)" ]; then
    hcr-data draw
fi
hcr-data pack --size 64
