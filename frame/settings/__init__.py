"""Every setting of the chain with its default, its help and its source, as dataclasses by subject."""

from frame.settings import cams, common, irn, segmentation

# What the chain and every stage script take, in the order of --help.
GROUPS = (
    common.Run, common.Hardware, common.Memory, common.Data, common.TrainList, common.InferList, common.EvalList,
    common.BackboneChoice, common.Weights,
    cams.Network, cams.SfcTraining, cams.Selection, cams.Calibration, cams.Inference, cams.Background,
    cams.FinalIr, cams.FinalMask, cams.LabelCrf, cams.CamScores, cams.IrLabels,
    irn.IrnCrop, irn.IrnTraining, irn.MaskSource, irn.RandomWalk,
    segmentation.SegNetwork, segmentation.SegLabels, segmentation.SegTraining, segmentation.SegEvalList,
    segmentation.SegTest)
