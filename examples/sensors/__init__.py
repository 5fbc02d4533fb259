"""A modality of your own, in a package of your own: recordings of several sensors, as CSV.

    python -m examples.sensors.draw data/raw/sensors
    maskstream shards examples.sensors.encode:sensors --root data/raw/sensors --out data/shards/sensors
    maskstream preview data/shards/sensors/train --modality examples.sensors.page:SENSORS
    maskstream bench data/shards/sensors/train --modality examples.sensors.page:SENSORS
    maskstream train examples.sensors.model:sensors_tiny --data data/shards/sensors/train --out runs/sensors

Run it where `examples` lies. encode.py: the dataset and the encoder. data.py: batches, and the data config with the
three functions that make their rows. model.py: the tokens of a masked autoencoder, and a recipe. page.py: the cards of
pages. Order, workers, resume, damaged samples, mixtures, fields, checkpoints and reports of speed come with it.
"""
