// See energy.h.
#include "energy.h"

#include <dlfcn.h>

#include <type_traits>

namespace bench {
namespace {

// What nvml.h declares of these functions; 0 is success.
struct Nvml {
  using Device = void*;
  int (*init)() = nullptr;
  int (*device_by_index)(unsigned index, Device* device) = nullptr;
  int (*total_energy_mj)(Device device, unsigned long long* energy) = nullptr;
  Device device = nullptr;
  bool usable = false;

  Nvml() {
    void* library = dlopen("libnvidia-ml.so.1", RTLD_NOW);
    if (library == nullptr) return;
    const auto find = [library](auto& function, const char* name) {
      function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(library, name));
      return function != nullptr;
    };
    usable = find(init, "nvmlInit_v2") && find(device_by_index, "nvmlDeviceGetHandleByIndex_v2") &&
             find(total_energy_mj, "nvmlDeviceGetTotalEnergyConsumption") && init() == 0 &&
             device_by_index(0, &device) == 0;
  }
};

}  // namespace

double energy_joules() {
  static const Nvml nvml;
  unsigned long long millijoules = 0;
  return nvml.usable && nvml.total_energy_mj(nvml.device, &millijoules) == 0 ? millijoules * 1e-3 : -1;
}

}  // namespace bench
