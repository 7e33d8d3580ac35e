"""Make a smaller base, measure what it cost, and bring back part of it.

command.py    `hotswap quantize`
settings.py   every setting of it
run.py        the stages: check, calibrate, round, measure, put in place
preflight.py  what is checked before the long part; plan.py: which layers; needs.py: memory and disk
schemes/      the ways of rounding, one file each
recipe.py     the recipe of llm-compressor that a scheme or a file resolves to
compress.py   llm-compressor on a model in memory; pipeline.py: its passes over the layers
resume.py     finished layers, kept for a run that goes on
progress.py   time left; silence of the libraries
stored.py     number formats on disk
outcome.py    what came of it
calibration/  text to round by
quality/      the quantised base against its original
recovery/     an adapter that brings it back towards the original
lm_head/      the output layer in 8 bits: measured here, rounded when it is served
layout/       the same numbers in the GPTQ layout
"""
