//! Marks tests that cannot run on this machine as ignored. `build.rs` looks for what they need when the tests are compiled.
//!
//! An attribute stands above `#[test]`: `#[needs::cxx] #[test] fn …`.

use proc_macro::{Delimiter, TokenStream, TokenTree};

/// What `build.rs` has found.
const FOUND: &str = env!("NEEDS_FOUND");

/// Whether an item still has its attribute `#[test]`, which is expanded later and reads the reason added here.
fn is_test(item: &TokenStream) -> bool {
    item.clone().into_iter().any(|token| match token {
        TokenTree::Group(group) if group.delimiter() == Delimiter::Bracket => group.stream().to_string() == "test",
        _ => false,
    })
}

fn mark(need: &str, missing: &str, item: TokenStream) -> TokenStream {
    let attribute = if !is_test(&item) {
        format!("::core::compile_error!(\"`#[needs::{need}]` stands above `#[test]`\");")
    } else if FOUND.split(',').any(|found| found == need) {
        return item;
    } else {
        format!("#[ignore = {missing:?}]")
    };
    let mut marked: TokenStream = attribute.parse().unwrap_or_default();
    marked.extend(item);
    marked
}

macro_rules! needs {
    ($($(#[$doc:meta])* $name:ident: $missing:literal;)+) => {
        const KNOWN: &[&str] = &[$(stringify!($name)),+];
        $(
            $(#[$doc])*
            #[proc_macro_attribute]
            pub fn $name(_: TokenStream, item: TokenStream) -> TokenStream {
                mark(stringify!($name), $missing, item)
            }
        )+
    };
}

needs! {
    /// The tests' data, which [`test_data!`] names.
    shared_data: "needs the data that VERILUME_TEST_DATA names";
    /// A browser, which [`browser!`] names.
    chromium: "needs Chromium";
    /// A C++ compiler.
    cxx: "no C++ compiler";
    /// Python 3.
    python3: "no python3";
    /// NVIDIA's run-time compiler.
    nvrtc: "NVRTC is not here";
    /// A machine without NVIDIA's driver.
    no_cuda_driver: "this machine has a CUDA driver";
    /// The instruction set of that name.
    avx2: "this machine has no AVX2 with FMA and F16C";
    /// The instruction set of that name.
    avx512: "this machine has no AVX-512 (F, BW, DQ, VL)";
}

/// Whether there is what the attribute of that name asks for: `needs::found!(cxx)`.
#[proc_macro]
pub fn found(need: TokenStream) -> TokenStream {
    let need = need.to_string();
    let text = match FOUND.split(',').any(|found| found == need) {
        _ if !KNOWN.contains(&&*need) => format!("::core::compile_error!(\"`{need}` is nothing that is looked for\")"),
        found => found.to_string(),
    };
    text.parse().unwrap_or_default()
}

fn option(value: Option<&str>) -> TokenStream {
    let text = value.map_or("::core::option::Option::<&str>::None".to_owned(), |value| {
        format!("::core::option::Option::Some({value:?})")
    });
    text.parse().unwrap_or_default()
}

/// The folder of the tests' data, an `Option<&str>`.
#[proc_macro]
pub fn test_data(_: TokenStream) -> TokenStream {
    option(option_env!("VERILUME_TEST_DATA"))
}

/// The browser, an `Option<&str>`.
#[proc_macro]
pub fn browser(_: TokenStream) -> TokenStream {
    option(option_env!("VERILUME_CHROMIUM"))
}
