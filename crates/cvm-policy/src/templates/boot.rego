# The boot-up policy: may this machine have its half of the key? Asked by a key holder for each release.
#
# Written by `flare-cvm policy new` from the image's reference values. It is yours: change what you accept, and give it
# to the ceremony, whose transcript names its SHA-256. `allow` decides; each reason in `deny` says why not.
