"""Text that decides how weights are rounded, as rows of tokens, and other text to measure the result on.

calibration_set.py  the rows, what they were made from, what is odd about them
make.py             from files, or from the shipped set, to the rows
texts.py            which examples are calibrated with, measured on, compared with
documents.py        examples to token ids
default/            the shipped set: prompts with reference answers, and a held-out part
default_set.py      reads it
own_answers.py      a base answers the shipped prompts itself
packing.py          documents to full rows
coverage.py         how much of one text another one covers
errors.py           what is refused
"""
