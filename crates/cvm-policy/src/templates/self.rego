# The self-verification policy: is this machine still what was built? Asked by a CVM of itself, after it has handed off.
#
# Written by `flare-cvm policy new` from the image's reference values. `allow` decides; each reason in `deny` says why not.
