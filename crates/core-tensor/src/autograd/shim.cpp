// libtorch's tensor hooks behind a C interface. See hook.rs for the other side and the ownership rules.

#include <torch/csrc/autograd/variable.h>
#include <ATen/core/Tensor.h>

#include <cstring>
#include <exception>
#include <memory>
#include <stdexcept>

namespace {

char *copy_message(const char *text) {
    char *copy = static_cast<char *>(std::malloc(std::strlen(text) + 1));
    if (copy != nullptr) std::strcpy(copy, text);
    return copy;
}

} // namespace

extern "C" {

// Receives the closure and a gradient that stays the caller's; returns an owned gradient, or null if the closure failed.
typedef at::Tensor *(*ct_call)(void *closure, at::Tensor *gradient);
typedef void (*ct_drop)(void *closure);

// Takes ownership of `closure`. Returns null, or a message to be freed with `ct_free`.
char *ct_register_hook(at::Tensor *tensor, void *closure, ct_call call, ct_drop drop) {
    std::shared_ptr<void> owner(closure, drop);
    try {
        tensor->register_hook([owner, call](at::Tensor gradient) -> at::Tensor {
            std::unique_ptr<at::Tensor> replaced(call(owner.get(), &gradient));
            if (!replaced) throw std::runtime_error("a gradient hook panicked");
            return *replaced;
        });
        return nullptr;
    } catch (const std::exception &error) {
        return copy_message(error.what());
    } catch (...) {
        return copy_message("unknown C++ exception");
    }
}

void ct_free(char *message) { std::free(message); }

} // extern "C"
