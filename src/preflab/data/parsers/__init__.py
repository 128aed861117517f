"""Row -> Comparison, one plain function per format of the table `preflab.data.formats.FORMATS`.

A parser reads fields and puts responses in order, best first. What holds for every format (no empty prompt or response,
no identical responses, valid Unicode, the row's number, the remaining scalar columns as meta) is done once, in
`preflab.data.rows.parse_row`.
"""
