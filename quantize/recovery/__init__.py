"""A small LoRA that brings a quantised base back towards the original, published only when it pays.

make.py         `make_recovery`: two bases and rows of tokens become a published adapter, or figures that say no
layers.py       the closed form over all layers; closed_form.py solves one, moments.py reads what goes into it,
                rescaling.py tells rounding from scales that the quantiser moved
distil.py       trains it on the original's next-token probabilities; divergence.py is the loss
student.py      a base with given factors on it
task.py         a task adapter that is on top of both bases meanwhile
gain.py         whether it pays; outcome.py the figures, manifest_record.py what the adapter says of itself
settings.py     the flags
"""
