//! Rust closures as nodes of libtorch's autograd graph.
//!
//! libtorch differentiates what is made of its own operations. A fused kernel is not, but
//! knows its gradients in closed form; [`attach`] puts it into the graph. The one file of C++
//! here is what the bindings lack for that.

use std::ffi::{CStr, CString, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use tch::Tensor;
use torch_sys::C_tensor;

/// The gradient of a node's value → those of its inputs, `None` where there is none to give.
pub type Backward = Box<dyn FnMut(&Tensor) -> Result<Vec<Option<Tensor>>, String> + Send>;

/// libtorch refused.
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

/// Makes `value` a function of `inputs` in the graph: in the backward pass `backward` is handed
/// its gradient. Where gradients are off, or no input wants one, `value` comes back as it is.
///
/// `value` must be a fresh tensor, no view of an input. What `backward` needs of the inputs or
/// of the value it captures detached: that shares memory and keeps no graph alive. The value
/// itself, captured, would hold the node that holds it, and neither would ever be freed.
///
/// # Errors
/// libtorch's own. An error or a panic of `backward` becomes an error of the backward pass.
pub fn attach(inputs: &[&Tensor], value: &Tensor, backward: Backward) -> Result<Tensor, Error> {
    let pointers: Vec<*const C_tensor> = inputs.iter().map(|input| input.as_ptr()).collect();
    let closure = Box::new(Closure { backward, inputs: inputs.len() });
    let mut message = std::ptr::null_mut();
    // SAFETY: the tensors outlive the call; the closure is handed over and released once.
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
    // SAFETY: a new tensor, ours alone.
    Ok(unsafe { Tensor::from_ptr(result) })
}

/// Calls a closure; `out` has room for a tensor for each input.
unsafe extern "C" fn call(
    closure: *mut c_void,
    gradient: *const C_tensor,
    out: *mut *mut C_tensor,
) -> *mut c_char {
    // SAFETY: this is what `attach` handed over, and nobody else has it now.
    let closure = unsafe { &mut *closure.cast::<Closure>() };
    // SAFETY: a tensor that lives as long as the call; the clone counts its reference.
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
            for (place, gradient) in gradients.into_iter().enumerate() {
                let Some(gradient) = gradient else { continue };
                let mut kept = std::mem::ManuallyDrop::new(gradient);
                // SAFETY: there is a place for each input; the caller owns the tensor now.
                unsafe { *out.add(place) = kept.as_mut_ptr() };
            }
            return std::ptr::null_mut();
        }
        Ok(Err(error)) => error,
        Err(_) => "a backward pass panicked".to_owned(),
    };
    let text = CString::new(error.replace('\0', " ")).unwrap_or_default();
    text.into_raw()
}

/// Drops a closure, or a message of [`call`].
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

    /// a · b with gradients of its own, each three times what they should be.
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
    fn gradients_are_those_of_the_closure_and_flow_on() {
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
    fn without_gradients_nothing_is_kept() {
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
            Box::new(|_| Err("the kernel is on strike".to_owned())),
            Box::new(|_| panic!("oh")),
            Box::new(|_| Ok(vec![])),
        ];
        let messages = ["the kernel is on strike", "panicked", "0 gradients for 1 inputs"];
        for (backward, message) in failing.into_iter().zip(messages) {
            let y = attach(&[&a], &a.detach().copy(), backward).unwrap();
            let error = y.f_sum(Kind::Float).unwrap().f_backward().unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
