// Energy that the GPU has used, by NVML, which is loaded at run time: a machine without it gives no figures.
#pragma once

namespace bench {

// Of GPU 0 since the driver was loaded, in joules; negative when unknown. The counter moves every tenth of a second or
// so: take differences over longer times.
double energy_joules();

}  // namespace bench
