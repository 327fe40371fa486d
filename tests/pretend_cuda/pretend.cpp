// A CUDA device that keeps its numbers in main memory: see README.md.
//
// Loaded before torch is imported, this library registers what torch's own CUDA library would: a device guard, hooks,
// an allocator, generators, and kernels. There is one kernel for nearly everything (`on_cpu`): it checks that the
// tensors lie where CUDA wants them, runs the CPU's kernel on the same memory, and counts what would make the host wait.
#define TORCH_ASSERT_ONLY_METHOD_OPERATORS
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_as_complex_native.h>
#include <ATen/ops/view_as_real_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <unordered_set>

namespace {
using at::Tensor;
using c10::Device;
using c10::DeviceIndex;
using c10::DispatchKey;
using c10::DispatchKeySet;
using c10::Stream;
constexpr auto CUDA = c10::DeviceType::CUDA;
constexpr DeviceIndex COUNT = 2;

// ---- what makes the host wait -----------------------------------------------------------------------
std::mutex lock;
std::map<std::string, long> waits;  // operation -> how often
bool refuses = false;

void count(const std::string& what) {
  TORCH_CHECK(!refuses, "pretend CUDA: the host waits for the device in ", what);
  std::lock_guard<std::mutex> held(lock);
  ++waits[what];
}

// Operations whose result (a number, a size) the host has to know, beside those that call nonzero or item themselves.
const std::unordered_set<std::string> READS{
    "aten::_local_scalar_dense", "aten::nonzero", "aten::nonzero.out", "aten::masked_select",
    "aten::masked_select.out", "aten::_unique", "aten::_unique2", "aten::unique_dim", "aten::unique_consecutive",
    "aten::unique_dim_consecutive", "aten::equal", "aten::bincount", "aten::repeat_interleave.Tensor",
    "aten::_linalg_svd.U", "aten::_linalg_eigh.eigenvalues", "aten::linalg_lstsq", "aten::is_nonzero"};

// ---- which operations CUDA lets mix devices: written at build time from torch's own list ----------------
const std::unordered_set<std::string> UNCHECKED{
#include "unchecked.inc"
};

// ---- devices and streams -------------------------------------------------------------------------------
thread_local DeviceIndex current = 0;

DeviceIndex exchange(DeviceIndex index) {
  TORCH_CHECK(index >= 0 && index < COUNT, "pretend CUDA: there is no device cuda:", int(index));
  return std::exchange(current, index);
}

Device with_index(std::optional<Device> device) {
  return Device(CUDA, device && device->has_index() ? device->index() : current);
}

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return CUDA; }
  Device exchangeDevice(Device device) const override { return Device(CUDA, exchange(device.index())); }
  Device getDevice() const override { return Device(CUDA, current); }
  void setDevice(Device device) const override { exchange(device.index()); }
  void uncheckedSetDevice(Device device) const noexcept override { current = device.index(); }
  DeviceIndex deviceCount() const noexcept override { return COUNT; }
  Stream getStream(Device device) const override { return Stream(Stream::DEFAULT, with_index(device)); }
  Stream getDefaultStream(Device device) const override { return getStream(device); }
  Stream getStreamFromGlobalPool(Device device, bool) const override { return getStream(device); }
  Stream getNewStream(Device device, int) const override { return getStream(device); }
  Stream exchangeStream(Stream stream) const override { return getStream(stream.device()); }
  void record(void**, const Stream&, const DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  bool queryStream(const Stream&) const override { return true; }
  void synchronizeStream(const Stream&) const override { count("synchronize"); }
  void synchronizeEvent(void*) const override { count("synchronize"); }
  void synchronizeDevice(const DeviceIndex) const override { count("synchronize"); }
};
C10_REGISTER_GUARD_IMPL(CUDA, Guard)

// ---- memory --------------------------------------------------------------------------------------------
void forget(void* held) { delete static_cast<c10::DataPtr*>(held); }

std::unordered_set<const void*> pinned_now;
void unpin(void* held) {
  std::lock_guard<std::mutex> guard(lock);
  pinned_now.erase(static_cast<c10::DataPtr*>(held)->get());
  forget(held);
}

struct DeviceMemory final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    auto* held = new c10::DataPtr(c10::GetCPUAllocator()->allocate(bytes));
    return {held->get(), held, &forget, Device(CUDA, current)};
  }
  void copy_data(void* to, const void* from, std::size_t bytes) const override { std::memcpy(to, from, bytes); }
} device_memory;

struct PinnedMemory final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    auto* held = new c10::DataPtr(c10::GetCPUAllocator()->allocate(bytes));
    std::lock_guard<std::mutex> guard(lock);
    pinned_now.insert(held->get());
    return {held->get(), held, &unpin, Device(c10::DeviceType::CPU)};
  }
  void copy_data(void* to, const void* from, std::size_t bytes) const override { std::memcpy(to, from, bytes); }
} pinned_memory;

[[maybe_unused]] const bool has_allocator = (c10::SetAllocator(CUDA, &device_memory), true);

// ---- random numbers: the CPU's, from a generator of the device ---------------------------------------
struct DeviceGenerator final : c10::GeneratorImpl {
  at::Generator inner;
  DeviceGenerator(DeviceIndex index, at::Generator of)
      : c10::GeneratorImpl(Device(CUDA, index), DispatchKeySet(DispatchKey::CUDA)), inner(std::move(of)) {}
  void set_current_seed(uint64_t seed) override { inner.set_current_seed(seed); }
  void set_offset(uint64_t offset) override { inner.set_offset(offset); }
  uint64_t get_offset() const override { return inner.get_offset(); }
  uint64_t current_seed() const override { return inner.current_seed(); }
  uint64_t seed() override { return inner.seed(); }
  void set_state(const c10::TensorImpl& state) override { inner.unsafeGetGeneratorImpl()->set_state(state); }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override { return inner.unsafeGetGeneratorImpl()->get_state(); }
  DeviceGenerator* clone_impl() const override { return new DeviceGenerator(device_.index(), inner.clone()); }
};

at::Generator made_generator(DeviceIndex index) {
  return at::make_generator<DeviceGenerator>(index, at::detail::createCPUGenerator());
}

const at::Generator& default_generator(DeviceIndex index) {
  static const std::vector<at::Generator> made{made_generator(0), made_generator(1)};
  return made.at(index < 0 ? current : index);
}

bool gives_defaults = false;  // while pretend.py asks for the devices' own generators, which torch has no name for

at::Generator new_generator(DeviceIndex index) {
  return gives_defaults ? default_generator(index) : made_generator(index < 0 ? current : index);
}

at::Generator cpu_generator(const at::Generator& of) {
  return static_cast<DeviceGenerator*>(of.unsafeGetGeneratorImpl())->inner;
}

// ---- hooks ---------------------------------------------------------------------------------------------
struct CUDAHooks final : at::CUDAHooksInterface {
  explicit CUDAHooks(at::CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex deviceCount() const override { return COUNT; }
  int getNumGPUs() const override { return COUNT; }
  DeviceIndex current_device() const override { return current; }
  DeviceIndex getCurrentDevice() const override { return current; }
  void setCurrentDevice(DeviceIndex index) const override { exchange(index); }
  DeviceIndex exchangeDevice(DeviceIndex index) const override { return exchange(index); }
  DeviceIndex maybeExchangeDevice(DeviceIndex index) const override { return index < 0 ? current : exchange(index); }
  void deviceSynchronize(DeviceIndex) const override { count("synchronize"); }
  const at::Generator& getDefaultGenerator(DeviceIndex index) const override { return default_generator(index); }
  at::Generator getNewGenerator(DeviceIndex index) const override { return new_generator(index); }
  c10::Allocator* getPinnedMemoryAllocator() const override { return &pinned_memory; }
  c10::Allocator* getCUDADeviceAllocator() const override { return &device_memory; }
  bool isPinnedPtr(const void* data) const override {
    std::lock_guard<std::mutex> guard(lock);
    return pinned_now.count(data) > 0;
  }
};
}  // namespace

namespace at {
using ::CUDAHooks;
REGISTER_CUDA_HOOKS(CUDAHooks)
}  // namespace at

namespace {
// ---- the same memory as a tensor of the CPU, and back ------------------------------------------------
Tensor shares(const Tensor& of, Device device, c10::Allocator* allocator) {
  const auto& storage = of.storage();
  auto* held = new c10::Storage(storage);
  c10::DataPtr data(storage.mutable_data(), held, [](void* p) { delete static_cast<c10::Storage*>(p); }, device);
  c10::Storage other(c10::Storage::use_byte_size_t(), storage.nbytes(), std::move(data), allocator, true);
  const auto key = device.is_cuda() ? DispatchKey::CUDA : DispatchKey::CPU;
  auto out = at::detail::make_tensor<c10::TensorImpl>(std::move(other), DispatchKeySet(key), of.dtype());
  out.unsafeGetTensorImpl()->set_sizes_and_strides(of.sizes(), of.strides(), of.storage_offset());
  if (of.unsafeGetTensorImpl()->is_wrapped_number()) out.unsafeGetTensorImpl()->set_wrapped_number(true);
  return out;
}

Tensor as_cpu(const Tensor& of) { return shares(of, Device(c10::DeviceType::CPU), c10::GetCPUAllocator()); }
Tensor as_cuda(const Tensor& of, Device device) { return shares(of, device, &device_memory); }

// One call of an operation: what was given, and which device that makes.
struct Call {
  const c10::FunctionSchema& schema;
  std::string name;
  std::optional<Device> device;   // of the CUDA tensors
  std::string device_argument;    // the first of them
  std::vector<std::pair<Tensor, Tensor>> pairs;  // CUDA tensor, the same on the CPU

  bool mixes() const { return UNCHECKED.count(name) > 0; }

  // May this argument lie on the CPU beside tensors of a GPU?
  bool may_stay(const Tensor& t, const c10::Argument& argument) const {
    if (argument.alias_info() && argument.alias_info()->isWrite()) return false;
    if (argument.name() == "indices" && (name == "aten::index.Tensor_out" || name == "aten::_index_put_impl_")) return true;
    return mixes() && t.dim() == 0;
  }

  void look(const Tensor& t, const c10::Argument& argument) {
    if (!t.defined() || !t.is_cuda()) return;
    if (!device) {
      device = t.device();
      device_argument = argument.name();
    }
  }

  void check(const Tensor& t, const c10::Argument& argument) const {
    if (!t.defined() || !device || t.device() == *device || (t.is_cpu() && may_stay(t, argument))) return;
    TORCH_CHECK(
        false, "pretend CUDA: ", name, " got tensors on two devices, ", *device, " (", device_argument, ") and ",
        t.device(), " (", argument.name(), ", shape ", t.sizes(), "); move them to one");
  }

  Tensor lower(const Tensor& t) {
    if (!t.defined() || !t.is_cuda()) return t;
    for (const auto& [mine, cpu] : pairs)
      if (mine.is_same(t)) return cpu;
    pairs.emplace_back(t, as_cpu(t));
    return pairs.back().second;
  }

  Tensor raise(const Tensor& t) const {
    if (!t.defined() || !t.is_cpu() || !device) return t;
    for (const auto& [mine, cpu] : pairs)
      if (cpu.is_same(t)) return mine;
    return as_cuda(t, *device);
  }

  template <class F> void each(const c10::IValue& value, F act) const {
    if (value.isTensor()) act(value.toTensor());
    else if (value.isTensorList()) for (const Tensor t : value.toTensorList()) act(t);
    else if (value.isOptionalTensorList()) {
      for (const std::optional<Tensor> t : value.toOptionalTensorList()) if (t) act(*t);
    }
  }

  template <class F> c10::IValue changed(const c10::IValue& value, F change) const {
    if (value.isTensor()) return change(value.toTensor());
    if (value.isTensorList()) {
      c10::List<Tensor> out;
      for (const Tensor t : value.toTensorList()) out.push_back(change(t));
      return out;
    }
    if (value.isOptionalTensorList()) {
      c10::List<std::optional<Tensor>> out;
      for (const std::optional<Tensor> t : value.toOptionalTensorList())
        out.push_back(t ? std::make_optional(change(*t)) : t);
      return out;
    }
    return value;
  }
};

// An operation may have given a CPU tensor other sizes or memory: so it does to the tensor it stands for.
void settle(const Tensor& mine, const Tensor& cpu) {
  if (cpu.storage().data() != mine.storage().data()) {
    auto* held = new c10::Storage(cpu.storage());
    c10::DataPtr data(held->mutable_data(), held, [](void* p) { delete static_cast<c10::Storage*>(p); }, mine.device());
    auto* storage = mine.storage().unsafeGetStorageImpl();
    storage->set_data_ptr_noswap(std::move(data));
    storage->set_nbytes(cpu.storage().nbytes());
  }
  if (cpu.sizes() != mine.sizes() || cpu.strides() != mine.strides())
    mine.unsafeGetTensorImpl()->set_sizes_and_strides(cpu.sizes(), cpu.strides(), cpu.storage_offset());
}

void count_reads(const Call& call, const c10::IValue* arguments) {
  if (READS.count(call.name)) count(call.name);
  if (call.name != "aten::_index_put_impl_") return;
  const auto& value = arguments[2].toTensor();
  for (const std::optional<Tensor> index : arguments[1].toOptionalTensorList())
    if (index && index->defined() && index->is_cuda() && (index->scalar_type() == at::kBool || index->scalar_type() == at::kByte))
      if (!(value.is_cpu() && value.numel() == 1)) count("aten::nonzero");  // else it fills, and knows what with
}

void on_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  Call call{schema, c10::toString(op.operator_name()), {}, {}, {}};
  const auto& arguments = schema.arguments();
  auto* given = &(*stack)[stack->size() - arguments.size()];
  for (size_t i = 0; i < arguments.size(); ++i)
    call.each(given[i], [&](const Tensor& t) { call.look(t, arguments[i]); });
  for (size_t i = 0; i < arguments.size(); ++i)
    call.each(given[i], [&](const Tensor& t) { call.check(t, arguments[i]); });
  if (call.device) count_reads(call, given);
  for (size_t i = 0; i < arguments.size(); ++i) {
    auto& value = given[i];
    if (value.isDevice()) {
      if (!call.device && value.toDevice().is_cuda()) call.device = with_index(value.toDevice());
      value = Device(c10::DeviceType::CPU);
    } else if (value.isGenerator()) {
      const auto& generator = value.toGenerator();
      TORCH_CHECK(
          generator.device().is_cuda(), "pretend CUDA: ", call.name, " draws on a GPU with a generator of the ",
          generator.device(), "; draw on the CPU and move the numbers");
      TORCH_CHECK(call.device, "Expected a 'cpu' device type for generator but found 'cuda' in ", call.name);
      value = cpu_generator(generator);
    } else if (value.isNone() && arguments[i].name() == "generator") {
      value = cpu_generator(default_generator(call.device ? call.device->index() : current));
    } else {
      value = call.changed(value, [&](const Tensor& t) { return call.lower(t); });
    }
  }
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    op.redispatchBoxed(DispatchKeySet(DispatchKey::CPU), stack);
  }
  for (const auto& [mine, cpu] : call.pairs) settle(mine, cpu);
  for (size_t i = stack->size() - schema.returns().size(); i < stack->size(); ++i)
    (*stack)[i] = call.changed((*stack)[i], [&](const Tensor& t) { return call.raise(t); });
}

// ---- kernels of their own ------------------------------------------------------------------------------
Tensor empty(
    c10::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<c10::Layout>, std::optional<Device> device,
    std::optional<bool>, std::optional<c10::MemoryFormat> format) {
  c10::DeviceGuard guard(with_index(device));
  return at::detail::empty_generic(size, &device_memory, DispatchKeySet(DispatchKey::CUDA), c10::dtype_or_default(dtype), format);
}

Tensor empty_strided(
    c10::IntArrayRef size, c10::IntArrayRef stride, std::optional<at::ScalarType> dtype, std::optional<c10::Layout>,
    std::optional<Device> device, std::optional<bool>) {
  c10::DeviceGuard guard(with_index(device));
  return at::detail::empty_strided_generic(
      size, stride, &device_memory, DispatchKeySet(DispatchKey::CUDA), c10::dtype_or_default(dtype));
}

// Any device to any other. The host waits for what it reads, and for what it sends unless that is non_blocking.
Tensor& copy_(Tensor& self, const Tensor& from, bool non_blocking) {
  if (from.is_cuda() && self.is_cpu()) count("copy to cpu");
  if (from.is_cpu() && self.is_cuda() && !non_blocking) count("blocking copy to cuda");
  auto to = self.is_cuda() ? as_cpu(self) : self;
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("aten::copy_", "");
  at::AutoDispatchBelowADInplaceOrView guard;
  torch::jit::Stack stack{to, from.is_cuda() ? as_cpu(from) : from, false};
  op.redispatchBoxed(DispatchKeySet(DispatchKey::CPU), &stack);
  return self;
}

int64_t plain_attention(
    const Tensor&, const Tensor&, const Tensor&, const std::optional<Tensor>&, double, bool, std::optional<double>, bool) {
  return 0;  // SDPBackend::math, which every device has
}

Tensor& set_storage(
    Tensor& self, c10::Storage source, int64_t offset, c10::IntArrayRef size, c10::IntArrayRef stride) {
  return at::native::set_storage_cpu_(self, std::move(source), offset, size, stride);
}

Tensor& set_storage_whole(Tensor& self, c10::Storage source) {
  const auto length = static_cast<int64_t>(source.nbytes() / self.itemsize());
  return at::native::set_storage_cpu_(self, std::move(source), 0, {length}, {});
}

void record_stream(Tensor&, Stream) {}

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("copy_", &copy_);
  m.impl("record_stream", &record_stream);
  m.impl("_fused_sdp_choice", &plain_attention);
  m.impl("as_strided", TORCH_FN(at::native::as_strided_tensorimpl));
  m.impl("view", TORCH_FN(at::native::view));
  m.impl("view_as_real", TORCH_FN(at::native::view_as_real));
  m.impl("view_as_complex", TORCH_FN(at::native::view_as_complex));
  m.impl("_reshape_alias", TORCH_FN(at::native::_reshape_alias));
  m.impl("unfold", TORCH_FN(at::native::unfold));
  m.impl("resize_", TORCH_FN(at::native::resize_));
  m.impl("set_.source_Storage", &set_storage_whole);
  m.impl("set_.source_Storage_storage_offset", &set_storage);
  m.impl("set_.source_Tensor", TORCH_FN(at::native::set_tensor_));
  m.impl("native_layer_norm", torch::CppFunction::makeFromBoxedFunction<&on_cpu>());  // else torch's slow general one
}

TORCH_LIBRARY_IMPL(_, CUDA, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&on_cpu>()); }
}  // namespace

// ---- for pretend.py -------------------------------------------------------------------------------------
extern "C" {
int pretend_device() { return current; }
int pretend_exchange(int index) { return index < 0 || index >= COUNT ? -1 : std::exchange(current, DeviceIndex(index)); }
void pretend_give_defaults(bool is_given) { gives_defaults = is_given; }
void pretend_refuse(bool is_refused) { refuses = is_refused; }
bool pretend_synchronize() {  // false: refused (no exception may leave through ctypes)
  if (!refuses) count("synchronize");
  return !refuses;
}
long pretend_waits(char* out, long size, bool clear) {  // lines "operation\tcount"; returns the bytes of all
  std::lock_guard<std::mutex> guard(lock);
  std::string text;
  for (const auto& [name, times] : waits) text += name + "\t" + std::to_string(times) + "\n";
  if (static_cast<long>(text.size()) < size) {
    std::memcpy(out, text.c_str(), text.size() + 1);
    if (clear) waits.clear();
  }
  return static_cast<long>(text.size());
}
}
