"""FP8 on disk: read what others wrote, write what others read. Names and shapes of scales are in layers/layouts.py.

    settings        the words and defaults of the command quantize
    quantize        from a checkpoint to its FP8 one, tensor by tensor
    calibrate       static scales of activations, from a text
    writer          a safetensors file, tensor by tensor
    headers         which weights of a file are FP8, and where their scales are
    stored_report   what a checkpoint in FP8 holds, layer by layer
    decoded         weights of stacked experts, read as values
    shards          which files a checkpoint has, and whether all of the model is in them
    names           from names in files to names in the model, by transformers' own rules
    companions      tokenizer, templates and all else that comes along
    folder          files of a folder, which come from anywhere: what is wrong names file and key
    announced       what a folder says of its FP8 weights
    said            what a quantization_config says of each layer, of three writers
    part_reader     for inference on many ranks: each reads its rows or columns
    guard           plain from_pretrained refuses codes that nothing announces
    config          what transformers is told when weights are to be FP8, or are so already
    casting         a weight becomes codes and scales, in memory and while it is read
    quantizer       transformers' quantizer: load, keep, save
    takeover        what is changed in transformers so that it asks that quantizer, and how it is changed back
    hf              the same for good: `import octoscale.hf` is this file

Nothing here resolves a MODEL argument: that is models/.
"""
