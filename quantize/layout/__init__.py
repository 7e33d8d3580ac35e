"""The same quantised weights in another checkpoint layout, number for number.

errors.py     what has no exact form in the other layout
scheme.py     what a compressed-tensors config says about its weights
gptq.py       one module's tensors in the layout of AutoGPTQ and GPTQModel
checkpoint.py a whole folder in that layout
"""
