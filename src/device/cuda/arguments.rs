//! What kernels are given: one plain structure each, defined here for Rust and, as text, for CUDA C++.

use std::ffi::c_void;
use std::marker::PhantomData;

/// A place in the memory of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub(crate) struct Address(pub u64);

impl Address {
    /// Nowhere.
    pub const NULL: Self = Self(0);

    /// `bytes` further.
    pub const fn plus(self, bytes: usize) -> Self {
        Self(self.0 + bytes as u64)
    }
}

/// A type that has the same meaning on both sides.
pub(crate) trait Argument {
    /// The C++ declaration of a field of this type.
    fn declare(name: &str) -> String;
}

macro_rules! plain {
    ($($rust:ty => $c:literal),+ $(,)?) => {
        $(impl Argument for $rust {
            fn declare(name: &str) -> String {
                format!("{} {name}", $c)
            }
        })+
    };
}

plain!(i32 => "int", u32 => "u32", u64 => "u64", f32 => "float", f64 => "double");

impl<T: Argument, const N: usize> Argument for [T; N] {
    fn declare(name: &str) -> String {
        format!("{}[{N}]", T::declare(name))
    }
}

/// A pointer that a kernel reads through.
#[repr(transparent)]
pub(crate) struct In<T>(Address, PhantomData<T>);

/// A pointer that a kernel writes through.
#[repr(transparent)]
pub(crate) struct Out<T>(Address, PhantomData<T>);

macro_rules! pointer {
    ($name:ident, $constness:literal) => {
        impl<T> Clone for $name<T> {
            fn clone(&self) -> Self {
                *self
            }
        }
        impl<T> Copy for $name<T> {}
        impl<T> From<Address> for $name<T> {
            fn from(at: Address) -> Self {
                Self(at, PhantomData)
            }
        }
        impl<T: Argument> Argument for $name<T> {
            fn declare(name: &str) -> String {
                format!(concat!($constness, "{}"), T::declare(&format!("*{name}")))
            }
        }
        impl<T> std::fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{:#x}", self.0.0)
            }
        }
    };
}

pointer!(In, "const ");
pointer!(Out, "");

impl Argument for u8 {
    fn declare(name: &str) -> String {
        format!("u8 {name}")
    }
}

/// What one launch gives to its kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packed<'a> {
    /// The structure.
    pub pointer: *const c_void,
    /// Its size.
    pub bytes: usize,
    lives: PhantomData<&'a ()>,
}

/// A structure that some kernel takes.
pub(crate) trait Arguments: Sized + Copy {
    /// Its name in both languages.
    const NAME: &'static str;

    /// Its C++ definition, with assertions that it has the layout it has here.
    fn definition() -> String;

    /// As a launch takes it.
    fn packed(&self) -> Packed<'_> {
        Packed { pointer: std::ptr::from_ref(self).cast(), bytes: size_of::<Self>(), lives: PhantomData }
    }
}

/// Defines argument structures and the header that tells CUDA C++ about them.
macro_rules! arguments {
    ($($(#[$doc:meta])* $name:ident { $($(#[$about:meta])* $field:ident: $type:ty,)+ })+) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Copy)]
            #[repr(C)]
            pub(crate) struct $name { $($(#[$about])* pub $field: $type,)+ }

            impl Arguments for $name {
                const NAME: &'static str = stringify!($name);

                fn definition() -> String {
                    let mut text = format!("struct {} {{\n", Self::NAME);
                    $(text += &format!("    {};\n", <$type as Argument>::declare(stringify!($field)));)+
                    text += "};\n";
                    text += &format!("static_assert(sizeof({}) == {}, \"layout\");\n", Self::NAME, size_of::<Self>());
                    $(text += &format!(
                        "static_assert(__builtin_offsetof({}, {}) == {}, \"layout\");\n",
                        Self::NAME, stringify!($field), std::mem::offset_of!($name, $field)
                    );)+
                    text
                }
            }
        )+

        /// The header `arguments.cuh`.
        pub(crate) fn header() -> String {
            let mut text = String::from("#pragma once\n");
            $(text += &<$name as Arguments>::definition();)+
            text
        }
    };
}

arguments! {
    /// Fills numbers with their own index times a factor: what the runtimes are tested with.
    CountArgs {
        /// `n` numbers.
        out: Out<f32>,
        /// How many.
        n: i32,
        /// What an index is multiplied by.
        factor: f32,
    }
}
