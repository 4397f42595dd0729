"""Studies that compare all personalised methods on small data, with settings chosen by `rivage train --tune`."""
