//! Rust closures as nodes of libtorch's autograd graph.
//!
//! libtorch differentiates compositions of its own operations. A fused kernel is opaque to it but
//! has closed-form gradients; [`attach`] adds it to the graph. The C++ file provides what the
//! bindings lack for this.

use std::ffi::{CStr, CString, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use tch::Tensor;
use torch_sys::C_tensor;

/// Maps the gradient of a node's value to those of its inputs, `None` for an input without one.
pub type Backward = Box<dyn FnMut(&Tensor) -> Result<Vec<Option<Tensor>>, String> + Send>;

/// An error reported by libtorch.
#[derive(Debug, thiserror::Error)]
#[error("libtorch: {0}")]
pub struct Error(String);

struct Closure {
    backward: Backward,
    inputs: usize,
}

unsafe extern "C" {
    fn leyden_autograd_attach(
        inputs: *const *const C_tensor,
        count: usize,
        value: *const C_tensor,
        closure: *mut c_void,
        backward: unsafe extern "C" fn(
            *mut c_void,
            *const C_tensor,
            *mut *mut C_tensor,
        ) -> *mut c_char,
        release: unsafe extern "C" fn(*mut c_void, *mut c_char),
        message: *mut *mut c_char,
    ) -> *mut C_tensor;
    fn free(memory: *mut c_void);
}

/// Makes `value` a function of `inputs` in the graph: the backward pass calls `backward` with the
/// gradient of `value`. If gradients are off, or no input requires one, `value` is returned
/// unchanged.
///
/// `value` must be a fresh tensor, not a view of an input. Tensors among the inputs or the value
/// that `backward` needs must be captured detached, which shares memory and keeps no graph alive.
/// Capturing the value itself would create a reference cycle that is never freed.
///
/// # Errors
/// Errors of libtorch. An error or a panic in `backward` becomes an error of the backward pass.
pub fn attach(inputs: &[&Tensor], value: &Tensor, backward: Backward) -> Result<Tensor, Error> {
    let pointers: Vec<*const C_tensor> = inputs.iter().map(|input| input.as_ptr()).collect();
    let closure = Box::new(Closure { backward, inputs: inputs.len() });
    let mut message = std::ptr::null_mut();
    // SAFETY: the tensors outlive the call; ownership of the closure passes to C++, which releases
    // it once.
    let result = unsafe {
        leyden_autograd_attach(
            pointers.as_ptr(),
            pointers.len(),
            value.as_ptr(),
            Box::into_raw(closure).cast(),
            call,
            release,
            &raw mut message,
        )
    };
    if result.is_null() {
        // SAFETY: on failure the message is a C string from malloc.
        let text = unsafe {
            let text = CStr::from_ptr(message).to_string_lossy().into_owned();
            free(message.cast());
            text
        };
        return Err(Error(text));
    }
    // SAFETY: a new tensor, owned by this function.
    Ok(unsafe { Tensor::from_ptr(result) })
}

/// Calls a closure; `out` has one slot per input.
unsafe extern "C" fn call(
    closure: *mut c_void,
    gradient: *const C_tensor,
    out: *mut *mut C_tensor,
) -> *mut c_char {
    // SAFETY: the pointer passed by `attach`; there is no other reference to it during the call.
    let closure = unsafe { &mut *closure.cast::<Closure>() };
    // SAFETY: the tensor outlives the call; the clone increments its reference count.
    let gradient = unsafe { Tensor::clone_from_ptr(gradient.cast_mut()) };
    // Panics must not cross into C++.
    let result = catch_unwind(AssertUnwindSafe(|| {
        let gradients = (closure.backward)(&gradient)?;
        match gradients.len() == closure.inputs {
            true => Ok(gradients),
            false => Err(format!("{} gradients for {} inputs", gradients.len(), closure.inputs)),
        }
    }));
    let error = match result {
        Ok(Ok(gradients)) => {
            for (slot, gradient) in gradients.into_iter().enumerate() {
                let Some(gradient) = gradient else { continue };
                let mut leaked = std::mem::ManuallyDrop::new(gradient);
                // SAFETY: `out` has one slot per input; ownership passes to the caller.
                unsafe { *out.add(slot) = leaked.as_mut_ptr() };
            }
            return std::ptr::null_mut();
        }
        Ok(Err(error)) => error,
        Err(_) => "a backward pass panicked".to_owned(),
    };
    let text = CString::new(error.replace('\0', " ")).unwrap_or_default();
    text.into_raw()
}

/// Drops a closure, or a message returned by [`call`].
unsafe extern "C" fn release(closure: *mut c_void, message: *mut c_char) {
    // SAFETY: each comes from `into_raw` here and is released once.
    unsafe {
        if !closure.is_null() {
            drop(Box::from_raw(closure.cast::<Closure>()));
        }
        if !message.is_null() {
            drop(CString::from_raw(message));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Backward, attach};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tch::{Kind, Tensor, no_grad_guard};

    /// a · b with custom gradients, three times the correct ones.
    fn product(a: &Tensor, b: &Tensor, dropped: &Arc<AtomicUsize>) -> Tensor {
        struct Count(Arc<AtomicUsize>);
        impl Drop for Count {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let count = Count(dropped.clone());
        let kept = (a.detach(), b.detach());
        let backward: Backward = Box::new(move |gradient| {
            let _ = &count;
            Ok(vec![Some(gradient * &kept.1 * 3), Some(gradient * &kept.0 * 3)])
        });
        attach(&[a, b], &(a.detach() * b.detach()), backward).unwrap()
    }

    fn leaf(x: f32) -> Tensor {
        Tensor::from_slice(&[x]).set_requires_grad(true)
    }

    #[test]
    fn gradients_come_from_the_closure_and_propagate() {
        let dropped = Arc::new(AtomicUsize::new(0));
        let (a, b) = (leaf(2.0), leaf(5.0));
        let y = product(&(&a * 10), &b, &dropped);
        assert_eq!(y.double_value(&[0]), 100.0);
        (y * 7).sum(Kind::Float).backward();
        assert_eq!(a.grad().double_value(&[0]), 7.0 * 5.0 * 3.0 * 10.0);
        assert_eq!(b.grad().double_value(&[0]), 7.0 * 20.0 * 3.0);
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn without_gradients_the_closure_is_dropped() {
        let dropped = Arc::new(AtomicUsize::new(0));
        let (a, b) = (leaf(2.0), leaf(5.0));
        {
            let _guard = no_grad_guard();
            assert!(!product(&a, &b, &dropped).requires_grad());
        }
        assert!(!product(&a.detach(), &b.detach(), &dropped).requires_grad());
        assert_eq!(dropped.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn errors_and_panics_of_a_closure_are_errors_of_the_backward_pass() {
        let a = leaf(1.0);
        let failing: [Backward; 3] = [
            Box::new(|_| Err("the kernel failed".to_owned())),
            Box::new(|_| panic!("oh")),
            Box::new(|_| Ok(vec![])),
        ];
        let messages = ["the kernel failed", "panicked", "0 gradients for 1 inputs"];
        for (backward, message) in failing.into_iter().zip(messages) {
            let y = attach(&[&a], &a.detach().copy(), backward).unwrap();
            let error = y.f_sum(Kind::Float).unwrap().f_backward().unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
