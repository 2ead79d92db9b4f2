//! Structures that host and device share.

/// Declares structures as kernels take them: fields in the order of C, without gaps, which is checked.
#[macro_export]
#[doc(hidden)]
macro_rules! kernel_arguments {
    ($($(#[$about:meta])* struct $name:ident { $($field:ident: $type:ty),* $(,)? })*) => {
        $(
            $(#[$about])*
            #[derive(Clone, Copy)]
            #[repr(C)]
            pub(super) struct $name { $(pub(super) $field: $type),* }

            const _: () = assert!(size_of::<$name>() == 0 $(+ size_of::<$type>())*, "there is a gap");

            // SAFETY: plain values one after the other, as just checked.
            #[allow(unsafe_code)]
            unsafe impl $crate::gpu::Plain for $name where $($type: $crate::gpu::Plain),* {}
        )*
    };
}
pub use kernel_arguments as arguments;
