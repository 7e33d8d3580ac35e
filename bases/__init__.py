"""Base models: find one by name, materialise the embedded default, fingerprint it, know its architecture.

resolve.py        `resolve_base`: a name, folder or hub id becomes a `ResolvedBase` (a folder on this machine)
embedded.py       `materialise_embedded`: the default base out of its Python package, converted once
gguf_checkpoint.py `convert_gguf`: a Llama GGUF file as a Hugging Face checkpoint folder
folder.py         `check_folder`: everything that keeps a folder from being served, at once
tokenizer_class.py `right_tokenizer_class`: byte-level tokenizers that call themselves Llama's
hub.py            `download_base`: a hub model at a pinned revision
weights.py        `hash_weights`, `weight_files`: safetensors read as bytes, without torch
architecture.py   `read_architecture`: `ArchitectureFacts` from the config alone
passport.py       `read_passport`: `Passport`, the fingerprint an adapter is tied to
tiny/             `make_tiny_base`: a random base with a real tokenizer, for trying things without a download
settings.py       `BasesSettings`: where Hotswap keeps what it makes
progress.py       `Progress`, `log_progress`: how long work tells what it is doing
errors.py         the root of every Hotswap error

Import from the file, not from here. This room knows nothing of adapters, quantisers or servers.
"""
