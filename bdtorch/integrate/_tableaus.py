"""Butcher tableaus of explicit methods, as data."""

from __future__ import annotations

from math import sqrt

from bdtorch.integrate import _dop853

Row = tuple[float, ...]
Rows = tuple[Row, ...]

KUTTA3_A: Rows = ((), (1 / 2,), (-1.0, 2.0))
RALSTON3_A: Rows = ((), (1 / 2,), (0.0, 3 / 4))
SSPRK3_A: Rows = ((), (1.0,), (1 / 4, 1 / 4))

_R = sqrt(5.0)
RALSTON4_A: Rows = (
    (),
    (2 / 5,),
    ((-2889 + 1428 * _R) / 1024, (3785 - 1620 * _R) / 1024),
    ((-3365 + 2094 * _R) / 6040, (-975 - 3046 * _R) / 2552, (467040 + 203968 * _R) / 240845),
)
RALSTON4_B: Row = (
    (263 + 24 * _R) / 1812,
    (125 - 1000 * _R) / 3828,
    1024 * (3346 + 1623 * _R) / 5924787,
    (30 - 4 * _R) / 123,
)

FEHLBERG_A: Rows = (
    (),
    (1 / 4,),
    (3 / 32, 9 / 32),
    (1932 / 2197, -7200 / 2197, 7296 / 2197),
    (439 / 216, -8.0, 3680 / 513, -845 / 4104),
    (-8 / 27, 2.0, -3544 / 2565, 1859 / 4104, -11 / 40),
)
FEHLBERG_4: Row = (25 / 216, 0.0, 1408 / 2565, 2197 / 4104, -1 / 5, 0.0)
FEHLBERG_5: Row = (16 / 135, 0.0, 6656 / 12825, 28561 / 56430, -9 / 50, 2 / 55)

CASH_KARP_A: Rows = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (3 / 10, -9 / 10, 6 / 5),
    (-11 / 54, 5 / 2, -70 / 27, 35 / 27),
    (1631 / 55296, 175 / 512, 575 / 13824, 44275 / 110592, 253 / 4096),
)
CASH_KARP_5: Row = (37 / 378, 0.0, 250 / 621, 125 / 594, 0.0, 512 / 1771)
CASH_KARP_4: Row = (2825 / 27648, 0.0, 18575 / 48384, 13525 / 55296, 277 / 14336, 1 / 4)

DORMAND_PRINCE_5: Row = (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84)
DORMAND_PRINCE_4: Row = (5179 / 57600, 0.0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40)
DORMAND_PRINCE_A: Rows = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    DORMAND_PRINCE_5,
)
# Shampine, Math. Comp. 46 (1986), doi:10.1090/S0025-5718-1986-0815836-3: order 4, continuous slope.
DORMAND_PRINCE_DENSE: Rows = (
    (1.0, -8048581381 / 2820520608, 8663915743 / 2820520608, -12715105075 / 11282082432),
    (0.0, 0.0, 0.0, 0.0),
    (0.0, 131558114200 / 32700410799, -68118460800 / 10900136933, 87487479700 / 32700410799),
    (0.0, -1754552775 / 470086768, 14199869525 / 1410260304, -10690763975 / 1880347072),
    (0.0, 127303824393 / 49829197408, -318862633887 / 49829197408, 701980252875 / 199316789632),
    (0.0, -282668133 / 205662961, 2019193451 / 616988883, -1453857185 / 822651844),
    (0.0, 40617522 / 29380423, -110615467 / 29380423, 69997945 / 29380423),
)

TSITOURAS_5: Row = (
    0.09646076681806522951816731316512876,
    1 / 100,
    0.4798896504144995747752495322905965,
    1.379008574103741893192274821856872,
    -3.290069515436080679901047585711363,
    2.324710524099773982415355918398765,
)
TSITOURAS_A: Rows = (
    (),
    (161 / 1000,),
    (-0.008480655492356988544426874250230774, 0.3354806554923569885444268742502307),
    (2.897153057105493432130432594192938, -6.359448489975074843148159912383825, 4.362295432869581411017727318190886),
    (
        5.325864828439256604428877920840511,
        -11.74888356406282787774717033978577,
        7.495539342889836208304604784564358,
        -0.09249506636175524925650207933207191,
    ),
    (
        5.861455442946420028659251486982647,
        -12.92096931784710929170611868178335,
        8.159367898576158643180400794539253,
        -0.07158497328140099722453054252582973,
        -0.02826905039406838290900305721271224,
    ),
    TSITOURAS_5,
)
TSITOURAS_4: Row = (
    0.09468075576583945807478876255758922,
    0.009183565540343253096776363936645313,
    0.4877705284247615707855642599631228,
    1.234297566930478985655109673884237,
    -2.707712349983525454881109975059321,
    1.866628418170587035753719399566211,
    1 / 66,
)


def product(*factors: Row) -> Row:
    """The product of polynomials given by their coefficients, lowest power first."""
    result: list[float] = [1.0]
    for factor in factors:
        longer = [0.0] * (len(result) + len(factor) - 1)
        for i, left in enumerate(result):
            for j, right in enumerate(factor):
                longer[i + j] += left * right
        result = longer
    return tuple(result)


def _tsitouras_dense() -> Rows:
    """The weights of the interpolant of order 4 in section 3 of the paper, without their constant term, which is 0."""
    square: Row = (0.0, 0.0, 1.0)
    polynomials = (
        product(
            (-1.0530884977290216,),
            (0.0, 1.0),
            (-1.3299890189751412, 1.0),
            (0.7139816917074209, -1.4364028541716351, 1.0),
        ),
        product((0.1017,), square, (1.2949852507374631, -2.1966568338249754, 1.0)),
        product((2.490627285651252793,), square, (1.57803468208092486, -2.38535645472061657, 1.0)),
        product((-16.54810288924490272,), square, (-1.21712927295533244, 1.0), (-0.61620406037800089, 1.0)),
        product((47.37952196281928122,), square, (-1.203071208372362603, 1.0), (-0.658047292653547382, 1.0)),
        product((-34.87065786149660974,), square, (-1.2, 1.0), (-2 / 3, 1.0)),
        product((2.5,), square, (-1.0, 1.0), (-0.6, 1.0)),
    )
    return tuple(polynomial[1:] for polynomial in polynomials)


def _dop853_dense() -> Rows:
    r"""Powers of theta from the nested form
    ``x (F0 + (1 - x) (F1 + x (F2 + (1 - x) (F3 + x (F4 + (1 - x) (F5 + x F6))))))``, where F0 = y1 - y0,
    F1 = h f0 - F0, F2 = 2 F0 - h (f0 + f1), and F3 to F6 are weighted sums of all slopes.
    """
    weights = (*_dop853.B[0], 0.0, 0.0, 0.0, 0.0)
    count = len(weights)
    first = [1.0 if i == 0 else 0.0 for i in range(count)]
    last = [1.0 if i == 12 else 0.0 for i in range(count)]
    terms: list[list[float]] = [
        list(weights),
        [f - w for f, w in zip(first, weights, strict=True)],
        [2 * w - f - e for w, f, e in zip(weights, first, last, strict=True)],
        *(list(row) for row in _dop853.DENSE),
    ]
    rows = [[0.0] * 7 for _ in range(count)]
    basis: Row = (1.0,)
    for number, term in enumerate(terms):
        basis = product(basis, (0.0, 1.0) if number % 2 == 0 else (1.0, -1.0))
        for stage, weight in enumerate(term):
            for power, coefficient in enumerate(basis[1:]):
                rows[stage][power] += weight * coefficient
    return tuple(tuple(row) for row in rows)


TSITOURAS_DENSE = _tsitouras_dense()
DOP853_DENSE = _dop853_dense()
