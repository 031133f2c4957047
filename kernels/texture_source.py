"""What only the texture unit can do, as device functions that kernels call: CUDA C++ that is linked to them.

Numba's calling convention for foreign code: `int f(T* result, arguments…)`, 0 for success; handles are 64-bit numbers,
and a tuple of four floats comes back through the pointer. Numba's code and this source become LTO-IR and are linked
by nvJitLink, so that a call ends up as one `tex.level.2d` or `tex.grad.2d` in the kernel; that needs no driver, and the
tests do it for every compute capability. Numba's simulator links nothing and gets the emulation beside this file.
"""

from __future__ import annotations

from typing import Any

from tilestream.kernels import texture_emulated
from tilestream.kernels.language import SIMULATED, cuda

CAN_LINK: bool = not SIMULATED and hasattr(cuda, "CUSource")
"""Whether Numba's CUDA target is one that links CUDA C++; the old one that numba ships is not."""

SOURCE = """
extern "C" __device__ int tilestream_tex2d_lod(
    float* texel, unsigned long long texture, float u, float v, float level)
{
    const float4 t = tex2DLod<float4>((cudaTextureObject_t)texture, u, v, level);
    texel[0] = t.x; texel[1] = t.y; texel[2] = t.z; texel[3] = t.w;
    return 0;
}

extern "C" __device__ int tilestream_tex2d_grad(
    float* texel, unsigned long long texture, float u, float v, float du_a, float dv_a, float du_b, float dv_b)
{
    const float4 t = tex2DGrad<float4>(
        (cudaTextureObject_t)texture, u, v, make_float2(du_a, dv_a), make_float2(du_b, dv_b));
    texel[0] = t.x; texel[1] = t.y; texel[2] = t.z; texel[3] = t.w;
    return 0;
}

template <typename One, typename Two, typename Four>
__device__ void store(
    cudaSurfaceObject_t surface, int x, int y, int lanes, unsigned a, unsigned b, unsigned c, unsigned d)
{
    // x is in bytes; a texel has 1, 2 or 4 lanes
    if (lanes == 1) {
        surf2Dwrite<One>((One)a, surface, x * (int)sizeof(One), y);
    } else if (lanes == 2) {
        Two texel; texel.x = a; texel.y = b;
        surf2Dwrite<Two>(texel, surface, x * (int)sizeof(Two), y);
    } else {
        Four texel; texel.x = a; texel.y = b; texel.z = c; texel.w = d;
        surf2Dwrite<Four>(texel, surface, x * (int)sizeof(Four), y);
    }
}

extern "C" __device__ int tilestream_surf2d_write(
    int* unused, unsigned long long surface, int x, int y, int item_bytes, int lanes,
    unsigned a, unsigned b, unsigned c, unsigned d)
{
    const cudaSurfaceObject_t into = (cudaSurfaceObject_t)surface;
    if (item_bytes == 1) store<unsigned char, uchar2, uchar4>(into, x, y, lanes, a, b, c, d);
    else if (item_bytes == 2) store<unsigned short, ushort2, ushort4>(into, x, y, lanes, a, b, c, d);
    else store<unsigned int, uint2, uint4>(into, x, y, lanes, a, b, c, d);
    *unused = 0;
    return 0;
}
"""


def _foreign(name: str, signature: str, emulated: Any) -> Any:
    """Return what kernels call: the linked function, or its emulation in the simulator."""
    if SIMULATED:
        return emulated
    if not CAN_LINK:
        return None  # `require_device` refuses that target: no kernel that calls this is ever compiled
    return cuda.declare_device(
        f"tilestream_{name}", signature, link=cuda.CUSource(SOURCE, name="tilestream_texture.cu")
    )


tex2d_lod: Any = _foreign(
    "tex2d_lod", "UniTuple(float32, 4)(uint64, float32, float32, float32)", texture_emulated.tex2d_lod
)
"""Four channels of a texture at u, v (0 to 1) and a level."""

tex2d_grad: Any = _foreign(
    "tex2d_grad",
    "UniTuple(float32, 4)(uint64, float32, float32, float32, float32, float32, float32)",
    texture_emulated.tex2d_grad,
)
"""Four channels of a texture at u, v (0 to 1), over the footprint that two steps (du, dv) span."""

surf2d_write: Any = _foreign(
    "surf2d_write",
    "int32(uint64, int32, int32, int32, int32, uint32, uint32, uint32, uint32)",
    texture_emulated.surf2d_write,
)
"""Store the bits of a texel of a level: surface, x, y, bytes a sample, samples a texel, four samples."""
