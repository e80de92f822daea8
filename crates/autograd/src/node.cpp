// An autograd graph node whose backward pass is an external function.

#include <torch/csrc/autograd/custom_function.h>

#include <cstring>
#include <memory>
#include <string>

namespace {

// Fills `out` with new tensors, or null where an input has no gradient. Returns null, or a
// message that `release` frees.
using Backward = char* (*)(void* closure, const at::Tensor* gradient, at::Tensor** out);
using Release = void (*)(void* closure, char* message);

struct Closure : torch::CustomClassHolder {
    void* closure;
    Backward backward;
    Release release;
    size_t inputs;

    Closure(void* closure, Backward backward, Release release, size_t inputs)
        : closure(closure), backward(backward), release(release), inputs(inputs) {}
    ~Closure() override { release(closure, nullptr); }
};

struct Node : torch::autograd::Function<Node> {
    static at::Tensor forward(
        torch::autograd::AutogradContext* context,
        at::TensorList inputs,
        const at::Tensor* value,
        const c10::intrusive_ptr<Closure>* closure) {
        (void)inputs;
        context->saved_data["closure"] = c10::IValue::make_capsule(*closure);
        return *value;
    }

    static torch::autograd::variable_list backward(
        torch::autograd::AutogradContext* context,
        const torch::autograd::variable_list& gradients) {
        auto held = context->saved_data["closure"].toCapsule();
        auto* closure = static_cast<Closure*>(held.get());
        std::vector<at::Tensor*> out(closure->inputs, nullptr);
        char* message = closure->backward(closure->closure, &gradients[0], out.data());
        // Two more for the non-tensor arguments of `forward`.
        torch::autograd::variable_list results(closure->inputs + 2);
        for (size_t i = 0; i < out.size(); i++) {
            std::unique_ptr<at::Tensor> owned(out[i]);
            if (owned) results[i] = *owned;
        }
        if (message != nullptr) {
            std::string text(message);
            closure->release(nullptr, message);
            throw std::runtime_error(text);
        }
        return results;
    }
};

}  // namespace

// Returns `value` as a function of `inputs`: a new tensor, or null and a malloc'ed message. Takes
// ownership of the closure, also on failure.
extern "C" at::Tensor* leyden_autograd_attach(
    const at::Tensor* const* inputs,
    size_t count,
    const at::Tensor* value,
    void* closure,
    Backward backward,
    Release release,
    char** message) {
    auto held = c10::make_intrusive<Closure>(closure, backward, release, count);
    try {
        torch::autograd::variable_list list;
        for (size_t i = 0; i < count; i++) list.push_back(*inputs[i]);
        return new at::Tensor(Node::apply(at::TensorList(list), value, &held));
    } catch (const std::exception& error) {
        *message = strdup(error.what());
        return nullptr;
    }
}
