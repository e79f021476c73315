// libtorch's tensor hooks, custom graph nodes and references to gradients behind a C interface. See hook.rs, custom.rs and
// gradient.rs for the other side and the ownership rules.

#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/variable.h>
#include <ATen/core/Tensor.h>

#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <stdexcept>
#include <vector>

namespace {

char out_of_memory[] = "out of memory";

// Never null, so that a failure is never taken for success.
char *copy_message(const char *text) {
    char *copy = static_cast<char *>(std::malloc(std::strlen(text) + 1));
    if (copy == nullptr) return out_of_memory;
    return std::strcpy(copy, text);
}

// Writes one owned gradient, or null for none, for each input; false if the closure failed.
typedef bool (*ct_backward)(void *closure, at::Tensor *gradient, at::Tensor **gradients, size_t count);

// A node whose backward pass is a closure of the other side.
struct ClosureNode : public torch::autograd::Node {
    std::shared_ptr<void> owner;
    ct_backward call = nullptr;
    size_t inputs = 0;

    torch::autograd::variable_list apply(torch::autograd::variable_list &&incoming) override {
        torch::autograd::variable_list gradients(inputs);
        if (incoming.empty() || !incoming[0].defined()) return gradients;
        std::vector<at::Tensor *> slots(inputs, nullptr);
        at::NoGradGuard no_grad;
        const bool finished = call(owner.get(), &incoming[0], slots.data(), inputs);
        for (size_t i = 0; i < inputs; ++i) {
            if (slots[i] == nullptr) continue;
            gradients[i] = *slots[i];
            delete slots[i];
        }
        if (!finished) throw std::runtime_error("a backward function panicked");
        return gradients;
    }
};

} // namespace

extern "C" {

// Receives the closure and a gradient that stays the caller's; returns an owned gradient, or null if the closure failed.
typedef at::Tensor *(*ct_call)(void *closure, at::Tensor *gradient);
typedef void (*ct_drop)(void *closure);

// Takes ownership of `closure`. Returns null, or a message to be freed with `ct_free`.
char *ct_register_hook(at::Tensor *tensor, void *closure, ct_call call, ct_drop drop) {
    try {
        // Drops the closure itself where it cannot be made.
        std::shared_ptr<void> owner(closure, drop);
        tensor->register_hook([owner, call](at::Tensor gradient) -> at::Tensor {
            // Hooks are called also where no gradient arrives.
            if (!gradient.defined()) return gradient;
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

// Takes ownership of `closure`. `value` must not be part of a graph; `*out` becomes an owned tensor with the same storage.
// Returns null, or a message to be freed with `ct_free`.
char *ct_with_backward(at::Tensor **inputs, size_t count, at::Tensor *value, void *closure, ct_backward call, void (*drop)(void *),
                       at::Tensor **out) {
    try {
        // Drops the closure itself where it cannot be made.
        std::shared_ptr<void> owner(closure, drop);
        torch::autograd::variable_list variables;
        for (size_t i = 0; i < count; ++i) variables.push_back(*inputs[i]);
        at::Tensor result = value->detach();
        if (at::GradMode::is_enabled() && torch::autograd::any_variable_requires_grad(variables)) {
            std::shared_ptr<ClosureNode> node(new ClosureNode(), torch::autograd::deleteNode);
            node->owner = owner;
            node->call = call;
            node->inputs = count;
            node->set_next_edges(torch::autograd::collect_next_edges(variables));
            torch::autograd::set_history(result, node);
        }
        *out = new at::Tensor(result);
        return nullptr;
    } catch (const std::exception &error) {
        return copy_message(error.what());
    } catch (...) {
        return copy_message("unknown C++ exception");
    }
}

// Resets the tensor's reference to its gradient. Returns null, or a message to be freed with `ct_free`.
char *ct_drop_gradient(at::Tensor *tensor) {
    try {
        if (tensor->grad().defined()) tensor->mutable_grad().reset();
        return nullptr;
    } catch (const std::exception &error) {
        return copy_message(error.what());
    } catch (...) {
        return copy_message("unknown C++ exception");
    }
}

void ct_free(char *message) {
    if (message != out_of_memory) std::free(message);
}

} // extern "C"
