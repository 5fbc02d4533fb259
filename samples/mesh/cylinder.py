"""Solves the flow around a cylinder in a channel: the incompressible Navier-Stokes equations in two dimensions.

The discretisation uses Taylor-Hood elements (quadratic velocity, linear pressure; scikit-fem). Time stepping is
Chorin's projection method in incremental form (Goda, 1979) without the projected velocity (Guermond, Minev and Shen,
2006): the velocity step uses the pressure plus its last correction, then the next correction is solved for. Diffusion
is implicit, convection explicit and second order (Adams-Bashforth). Both matrices are constant and factorised once. The
inflow is a parabola, velocity is 0 at the walls and the cylinder, pressure is 0 at the outflow. The setting follows
MeshGraphNets' cylinder flow (Pfaff et al., 2021).

The mesh of the channel is the Delaunay triangulation of points on the boundaries, on rings around the cylinder whose
spacing grows to the channel's, and on a jittered hexagonal grid elsewhere.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from maskstream.preprocess.encode.mesh.encoder import INFLOW, NORMAL, OUTFLOW, WALL, Simulation
from maskstream.preprocess.source import RejectError
from maskstream.shards.arrays import Float32s, Float64s, Int32s, Int64s
from maskstream.shards.config import Config
from maskstream.shards.errors import DatasetError
from maskstream.shards.limits import NaturalFloat, PositiveFloat

FIELD_NAMES = ("velocity_x", "velocity_y", "pressure")
_RUNAWAY = 20
"""The solution has diverged if the speed exceeds this many times the inflow speed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CylinderFlow(Config):
    """Parameters of one flow.

    inlet_m_s: Peak inflow speed. x_m, y_m, radius_m: The cylinder. spacing_m: Distance between nodes. viscosity_m2_s:
    Kinematic viscosity; density is 1. step_s: The solver's time step. Frames from start_s to end_s are recorded, one
    every frame_s.
    """

    inlet_m_s: PositiveFloat = 1.25
    x_m: float = 0.33
    y_m: float = 0.2
    radius_m: PositiveFloat = 0.05
    spacing_m: PositiveFloat = 0.03
    viscosity_m2_s: PositiveFloat = 1e-3
    step_s: PositiveFloat = 1e-3
    start_s: NaturalFloat = 1.0
    end_s: float = 4.0
    frame_s: float = 0.02
    length_m: float = 1.6
    height_m: float = 0.41

    def validate(self) -> None:
        room = min(self.y_m, self.height_m - self.y_m, self.x_m, self.length_m - self.x_m) - self.radius_m
        if room < self.spacing_m:
            raise ValueError(
                f"the cylinder (x={self.x_m}, y={self.y_m}, radius {self.radius_m}) needs one spacing "
                f"({self.spacing_m}) or more to every side of the {self.length_m} x {self.height_m} channel"
            )
        if not self.step_s <= self.frame_s <= self.end_s - self.start_s:
            raise ValueError(
                f"step_s={self.step_s}, frame_s={self.frame_s}, start_s={self.start_s}, end_s={self.end_s} must "
                "satisfy step_s <= frame_s <= end_s - start_s"
            )


def compute(flow: CylinderFlow) -> Simulation:
    """Solve the flow from rest; results repeat exactly on one machine.

    Raises RejectError if the solution diverges, DatasetError if scikit-fem is not installed.
    """
    try:
        from skfem import MeshTri
    except ImportError as error:
        raise DatasetError("flows are computed with scikit-fem: pip install 'maskstream[meshes]'") from error
    nodes, triangles = build_channel_mesh(
        (flow.x_m, flow.y_m), flow.radius_m, length=flow.length_m, height=flow.height_m, spacing=flow.spacing_m
    )
    mesh = MeshTri(np.ascontiguousarray(nodes.T), np.ascontiguousarray(triangles.T))
    return Simulation(
        positions=nodes.astype(np.float32),
        cells=triangles.astype(np.int32),
        node_type=_classify_nodes(mesh, nodes, flow),
        fields=_Solver(mesh, flow).run(),
        field_names=FIELD_NAMES,
        dt_s=flow.frame_s,
    )


def _classify_nodes(mesh: Any, nodes: Float64s, flow: CylinderFlow) -> Int32s:
    """Return the node types int32 (V,); the channel's corners are wall."""
    kinds = np.full(len(nodes), NORMAL, dtype=np.int32)
    kinds[mesh.boundary_nodes()] = WALL
    x, y = nodes.T
    between = (y > 1e-9) & (y < flow.height_m - 1e-9)
    kinds[(x < 1e-9) & between] = INFLOW
    kinds[(x > flow.length_m - 1e-9) & between] = OUTFLOW
    return kinds


class _Solver:
    """The matrices of one mesh. Velocity has N quadratic unknowns per component, pressure has Q linear ones. F of the
    N, and all of the Q except those at the outflow, are free.
    """

    def __init__(self, mesh: Any, flow: CylinderFlow) -> None:
        from scipy.sparse import diags
        from skfem import Basis, ElementTriP1, ElementTriP2

        self.flow = flow
        velocity = Basis(mesh, ElementTriP2(), intorder=5)
        pressure = Basis(mesh, ElementTriP1(), intorder=5)
        weight = diags(velocity.dx.ravel())
        self.value, self.value_x, self.value_y = _build_evaluation(velocity)
        p, p_x, p_y = _build_evaluation(pressure)
        fixed, inflow = _find_velocity_boundary(mesh, velocity, flow)
        self.boundary = np.stack([inflow, np.zeros_like(inflow)], axis=1)
        self.free = np.setdiff1d(np.arange(velocity.N), fixed)
        outflow = mesh.facets_satisfying(lambda x: x[0] > flow.length_m - 1e-9, True)
        self.free_p = np.setdiff1d(np.arange(pressure.N), pressure.get_dofs(outflow).all())
        tested = (self.value.T @ weight).tocsr()
        mass = (tested @ self.value / flow.step_s).tocsr()
        stiff = self.value_x.T @ weight @ self.value_x + self.value_y.T @ weight @ self.value_y
        momentum = (mass + flow.viscosity_m2_s * stiff).tocsr()
        self.tested, self.mass = tested[self.free], mass[self.free]
        self.gradient = [(tested @ slope).tocsr()[self.free] for slope in (p_x, p_y)]
        of_p = (p.T @ weight).tocsr()[self.free_p] / flow.step_s
        self.divergence = [(of_p @ slope).tocsr() for slope in (self.value_x, self.value_y)]
        self.solve_momentum = _split_into_factors(momentum, self.free)
        self.solve_pressure = _split_into_factors((p_x.T @ weight @ p_x + p_y.T @ weight @ p_y).tocsr(), self.free_p)
        self.lift = momentum[self.free][:, fixed] @ self.boundary[fixed]
        self.nodal: Int64s = velocity.nodal_dofs[0]

    @np.errstate(over="ignore", invalid="ignore")
    def run(self) -> Float32s:
        """Return the recorded frames, float32 (T, V, 3). Raises RejectError if the solution diverges."""
        flow = self.flow
        every = max(1, round(flow.frame_s / flow.step_s))
        first, steps = round(flow.start_s / flow.step_s), round(flow.end_s / flow.step_s)
        velocity = self.boundary
        pressure = correction = np.zeros(self.gradient[0].shape[1])
        before = self._compute_convection(velocity)
        frames: list[Float32s] = []
        for step in range(steps):
            if step >= first and (step - first) % every == 0:
                frames.append(self._frame(velocity, pressure, step))
            convection = self._compute_convection(velocity)
            velocity = self._solve_velocity(velocity, pressure + correction, 1.5 * convection - 0.5 * before)
            before, correction = convection, self._solve_correction(velocity)
            pressure = pressure + correction
        return np.stack(frames)

    def _frame(self, velocity: Float64s, pressure: Float64s, step: int) -> Float32s:
        frame = np.column_stack([velocity[self.nodal], pressure]).astype(np.float32)
        fastest = float(np.abs(frame[:, :2]).max())
        if not np.isfinite(frame).all() or fastest > _RUNAWAY * self.flow.inlet_m_s:
            raise RejectError(
                "encode",
                f"the simulation diverged by {step * self.flow.step_s:.3f} s; use a smaller step_s or a coarser mesh",
            )
        return frame

    def _compute_convection(self, velocity: Float64s) -> Float64s:
        """Return the weak form float64 (F, 2) of (u . grad) u for a velocity float64 (N, 2)."""
        ux, uy = np.ascontiguousarray(velocity.T)
        at_x, at_y = self.value @ ux, self.value @ uy
        along = [self.tested @ (at_x * (self.value_x @ u) + at_y * (self.value_y @ u)) for u in (ux, uy)]
        return np.stack(along, axis=1)

    def _solve_velocity(self, velocity: Float64s, pressure: Float64s, convection: Float64s) -> Float64s:
        """Return the velocity float64 (N, 2) one step later, given a pressure float64 (Q,)."""
        pushed = np.stack([slope @ pressure for slope in self.gradient], axis=1)
        later = self.boundary.copy()
        later[self.free] = self.solve_momentum(self.mass @ velocity - convection - pushed - self.lift)
        return later

    def _solve_correction(self, velocity: Float64s) -> Float64s:
        """Return the pressure correction float64 (Q,) that makes the velocity divergence-free."""
        change = np.zeros(self.gradient[0].shape[1])
        over_x, over_y = self.divergence
        change[self.free_p] = self.solve_pressure(-(over_x @ velocity[:, 0] + over_y @ velocity[:, 1]))
        return change


def _find_velocity_boundary(mesh: Any, basis: Any, flow: CylinderFlow) -> tuple[Int64s, Float64s]:
    """Return the Dirichlet unknowns of a velocity component, and their x values float64 (N,), 0 elsewhere."""
    inflow = mesh.facets_satisfying(lambda x: x[0] < 1e-9, True)
    outflow = mesh.facets_satisfying(lambda x: x[0] > flow.length_m - 1e-9, True)
    walls = np.setdiff1d(mesh.boundary_facets(), np.concatenate([inflow, outflow]))
    at_inflow, at_walls = basis.get_dofs(inflow).all(), basis.get_dofs(walls).all()
    y = basis.doflocs[1]
    values = np.zeros(basis.N)
    values[at_inflow] = (4 * flow.inlet_m_s * y * (flow.height_m - y) / flow.height_m**2)[at_inflow]
    values[at_walls] = 0
    return np.union1d(at_inflow, at_walls), values


def _split_into_factors(matrix: Any, rows: Int64s) -> Callable[[Float64s], Float64s]:
    from scipy.sparse.linalg import splu

    solve: Callable[[Float64s], Float64s] = splu(matrix[rows][:, rows].tocsc()).solve
    return solve


def _build_evaluation(basis: Any) -> list[Any]:
    """Sparse matrices (points, unknowns) that evaluate a function and its two derivatives at the quadrature points."""
    from scipy.sparse import csr_matrix

    n_elements, n_points = basis.dx.shape
    rows = np.arange(n_elements * n_points)
    found: list[list[Float64s]] = [[], [], []]
    for i in range(basis.Nbfun):
        function = basis.basis[i][0]
        slope = np.broadcast_to(function.grad, (2, n_elements, n_points))
        values = (np.broadcast_to(np.asarray(function), (n_elements, n_points)), slope[0], slope[1])
        for of_all, value in zip(found, values, strict=True):
            of_all.append(value.ravel())
    columns = np.concatenate([np.repeat(basis.element_dofs[i], n_points) for i in range(basis.Nbfun)])
    place = (np.tile(rows, basis.Nbfun), columns)
    return [csr_matrix((np.concatenate(v), place), shape=(len(rows), basis.N)) for v in found]


_RING_POINTS_PER_SPACING = 0.8
"""Largest distance of points on the cylinder's edge, as a fraction of the channel's spacing."""
_MIN_RING_POINTS = 20
_JITTER = 0.1


def build_channel_mesh(
    centre: tuple[float, float], radius: float, *, length: float, height: float, spacing: float
) -> tuple[Float64s, Int64s]:
    """Return nodes float64 (V, 2) in metres and triangles int64 (C, 3) of [0, length] x [0, height] without the disc.

    All lengths are in metres. The same arguments result in the same mesh.
    """
    from scipy.spatial import Delaunay

    rings, reach = _place_rings(centre, radius, spacing, room=min(centre[1], height - centre[1]))
    points = np.concatenate(
        [_find_border(length, height, spacing), *rings, _place_grid(centre, reach, length, height, spacing)]
    )
    triangles = Delaunay(points).simplices.astype(np.int64)
    middle = points[triangles].mean(axis=1)
    outside = np.hypot(*(middle - centre).T) > 0.999 * radius
    triangles = triangles[outside & (_compute_area(points, triangles) > 1e-3 * spacing**2)]
    used, numbered = np.unique(triangles, return_inverse=True)
    return points[used], numbered.reshape(triangles.shape)


def _find_border(length: float, height: float, spacing: float) -> Float64s:
    corners = np.array([[0, 0], [length, 0], [length, height], [0, height]], dtype=np.float64)
    sides = []
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        along = np.linspace(0, 1, int(np.ceil(np.hypot(*(end - start)) / spacing)), endpoint=False)[:, None]
        sides.append(start * (1 - along) + end * along)
    return np.concatenate(sides)


def _place_rings(
    centre: tuple[float, float], radius: float, spacing: float, *, room: float
) -> tuple[list[Float64s], float]:
    """Return rings with equal numbers of points, each rotated by half a gap against the previous one, and the radius at
    which they end.

    `room` is the distance from the centre to the nearest wall.
    """
    count = max(_MIN_RING_POINTS, int(np.ceil(2 * np.pi * radius / (_RING_POINTS_PER_SPACING * spacing))))
    rings: list[Float64s] = []
    at = radius
    while True:
        turn = np.linspace(0, 2 * np.pi, count, endpoint=False) + len(rings) * np.pi / count
        rings.append(np.stack([centre[0] + at * np.cos(turn), centre[1] + at * np.sin(turn)], axis=1))
        gap = 2 * np.pi * at / count
        at += 0.87 * gap
        if gap > spacing or at + gap > room - 0.4 * spacing:
            return rings, at


def _place_grid(centre: tuple[float, float], reach: float, length: float, height: float, spacing: float) -> Float64s:
    """Return points inside the channel, farther than `reach` from the centre, jittered by up to a tenth of the
    spacing.
    """
    x, y = np.meshgrid(
        np.arange(spacing, length - spacing / 2, spacing),
        np.arange(0.87 * spacing, height - spacing / 2, 0.87 * spacing),
    )
    x = x + (np.arange(len(x)) % 2)[:, None] * spacing / 2
    moved = np.random.default_rng(0).uniform(-_JITTER, _JITTER, (x.size, 2)) * spacing
    points = np.stack([x.ravel(), y.ravel()], axis=1) + moved
    clear = np.hypot(*(points - centre).T) > reach - 0.3 * spacing
    inside = (points[:, 0] < length - 0.4 * spacing) & (points[:, 1] < height - 0.4 * spacing)
    chosen: Float64s = points[clear & inside]
    return chosen


def _compute_area(points: Float64s, triangles: Int64s) -> Float64s:
    a, b, c = (points[triangles[:, i]] for i in range(3))
    area: Float64s = 0.5 * np.abs((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0])
    return area
