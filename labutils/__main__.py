"""`python -m labutils` checks that this environment can run the labs."""

import sys

from labutils.course.doctor import main

if __name__ == "__main__":
    sys.exit(main())
