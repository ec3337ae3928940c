# The cross-verification policy: is the other machine what was built? Asked by a peer or an auditor of a running node,
# over a challenge of the asker's own.
#
# Written by `flare-cvm policy new` from the image's reference values. `allow` decides; each reason in `deny` says why not.
