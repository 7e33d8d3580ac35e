"""What quantising cost: the quantised base beside the original on text that neither calibration nor training saw.

figures.py        the figures, with intervals
served_model.py   a base in transformers that computes as it is served
measure.py        original and quantised side by side over rows of tokens
errors.py         a base that cannot be measured
log_odds.py       how far the tokens that the original would say have moved
"""
