"""The engine's inner loops, compiled: learners packed in one heap, folded and written natively.

``layout`` says where everything of a learner lies; ``rows``, ``days`` and ``memory`` what is in its
parts; ``heap`` gives out and moves blocks. ``scan`` reads records, ``fold`` takes attempts in,
``transfer`` reads and writes rows of ``engine-state``. ``outputs`` writes all that is published:
``updates`` abilities, ``daily`` and ``weekly`` rows with the index of ``improvement``.

All of it is Python that Numba compiles; the mathematics of the filter are the very functions of
:mod:`stream.domain.ability`.
"""
