"""thetastream: live, exact learner ability from a stream of attempts."""
