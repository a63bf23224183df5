"""What a segmented scene becomes on the disk: maps, pictures, polygons, a record.

Per scene, beside each other in one folder:

    NAME.tif | NAME.png       the label map: class ids, 255 where there is none
    NAME_probabilities.tif    one band per class            (on request)
    NAME_uncertainty.tif      entropy or margin, 0 = sure   (on request)
    NAME_overlay.png          a small picture to look at, with a legend
    NAME.geojson | NAME.gpkg  one polygon per region        (on request)
    NAME.json                 what made them, and the pixels of every class

A file has its final name only when it is complete; the record comes last.
"""

from uhrjax.output.mask import write_mask
from uhrjax.output.name import distinct_names
from uhrjax.output.options import OutputOptions
from uhrjax.output.writer import SceneWriter

__all__ = ["OutputOptions", "SceneWriter", "distinct_names", "write_mask"]
