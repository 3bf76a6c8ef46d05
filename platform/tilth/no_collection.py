"""What the fork server imports first: while it only loads, collecting garbage finds none and takes a fifth of the time.

`tilth.rehearsal`, which it imports last, ends this.
"""

import gc

gc.disable()
