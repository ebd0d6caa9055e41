"""Mini VOC: a generated data set in PASCAL VOC 2012's folder layout, for runs that take minutes on a CPU.

It shows the problem that shared feature calibration addresses: classes with long-tailed frequencies that share
parts. An object is an elliptical body plus a glyph of about the same area. Half of the classes have a striped body
and half a checkered one, so the body says little about the class; the glyph, with its own shape and fine texture,
identifies it. Both parts have the same random hue, so colour says nothing. About 70 % of the images hold one class
and 30 % hold two.

    python -m data.mini_voc OUT          # 800 training and 100 validation images of 128 x 128 pixels

Files under OUT (IDs such as `mini_train_0001`):

    JPEGImages/ID.jpg, Annotations/ID.xml     image; bounding boxes and class names as in VOC
    SegmentationClass/ID.png                  0 background, 1.. classes, 255 contour; SegmentationClassAug is the same
    SegmentationPart/ID.png                   0 background, 1 shared part, 2 discriminative part, 255 contour
    ImageSets/Segmentation/{train,train_aug,val}.txt
    classes.txt                               foreground class names in index order
    mini_voc.json                             settings, class order by frequency, classes that share a body
"""

from data.mini_voc.classes import class_look, class_probabilities, draw_classes
from data.mini_voc.files import generate
from data.mini_voc.scene import DISCRIMINATIVE, SHARED, Appearance, Scene, render
from data.mini_voc.shapes import BODIES, GLYPH_TEXTURES, GLYPHS

__all__ = ["BODIES", "DISCRIMINATIVE", "GLYPHS", "GLYPH_TEXTURES", "SHARED", "Appearance", "Scene", "class_look",
           "class_probabilities", "draw_classes", "generate", "render"]
