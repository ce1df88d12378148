"""The engine's inner loops, compiled: learners packed in one heap, folded and written natively.

``layout`` says where everything of a learner lies; ``heap`` gives out and moves blocks; ``fold``
takes attempts in; ``transfer`` reads and writes the rows of ``engine-state``; ``outputs`` writes
what is published. All of it is Python that Numba compiles; the mathematics of the filter are the
very functions of :mod:`stream.domain.ability`.
"""
