"""The lab: models too big for a page, behind the same hook names. `neuroscope serve`, experiments, sweeps.

It never imports the exporter or the site's builder, and no model code that comes with a checkpoint.
"""
