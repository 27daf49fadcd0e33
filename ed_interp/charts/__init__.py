"""Charts: a picture is data (:mod:`spec`), drawn by Plotly for the screen and by Matplotlib still.

A room describes its pictures as :class:`~ed_interp.charts.spec.Chart` and imports neither.
"""
