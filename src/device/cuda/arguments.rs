//! Arguments of kernels: one plain structure each, defined here for Rust and, as text, for CUDA C++.

use std::ffi::c_void;
use std::marker::PhantomData;

/// An address in the memory of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub(crate) struct Address(pub u64);

impl Address {
    /// The null pointer.
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

impl<T> In<T> {
    /// Whether it is null.
    pub fn is_null(self) -> bool {
        self.0 == Address::NULL
    }
}

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
        /// The null address.
        impl<T> Default for $name<T> {
            fn default() -> Self {
                Address::NULL.into()
            }
        }
        impl<T> From<Address> for $name<T> {
            fn from(at: Address) -> Self {
                Self(at, PhantomData)
            }
        }
        impl<T: Argument> Argument for $name<T> {
            fn declare(name: &str) -> String {
                format!("{}{}", $constness, T::declare(&format!("*{name}")))
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

/// The argument of a launch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packed<'a> {
    /// The structure.
    pub pointer: *const c_void,
    /// Its size.
    pub bytes: usize,
    lives: PhantomData<&'a ()>,
}

/// An argument structure of some kernels.
pub(crate) trait Arguments: Sized + Copy {
    /// Its name in both languages.
    const NAME: &'static str;

    /// Its C++ definition, with assertions that it has the layout it has here.
    fn definition() -> String;

    /// In the form that a launch takes.
    fn packed(&self) -> Packed<'_> {
        Packed { pointer: std::ptr::from_ref(self).cast(), bytes: size_of::<Self>(), lives: PhantomData }
    }
}

/// Defines argument structures, zero and null by default, and the header that declares them in CUDA C++.
macro_rules! arguments {
    ($($(#[$doc:meta])* $name:ident { $($(#[$about:meta])* $field:ident: $type:ty,)+ })+) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Copy, Default)]
            #[repr(C)]
            pub(crate) struct $name { $($(#[$about])* pub $field: $type,)+ }

            impl Argument for $name {
                fn declare(name: &str) -> String {
                    format!("{} {name}", stringify!($name))
                }
            }

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
    /// Fills an array with the index times a factor; for testing runtimes.
    CountArgs {
        /// `n` numbers.
        out: Out<f32>,
        /// How many.
        n: i32,
        /// Factor of the index.
        factor: f32,
    }

    /// Operations on sums before they are stored: bias, then another value, then bits, clamp, gate, factor.
    ///
    /// Values are `[copy][row][column][channel]`; bits are `[copy][row][column][channel / 32]`, the lowest first.
    EpilogueArgs {
        /// One number per channel, or one per element if `bias_elements`; or null.
        bias: In<f32>,
        /// A value of the output's shape, or null.
        add: In<f32>,
        /// Bits of the output's shape (numbers whose bit is not set become zero), or null.
        gate: In<u32>,
        /// A factor of the output's shape, or null.
        times: In<f32>,
        /// Output for the bits of numbers strictly inside the range, or null.
        bits: Out<u32>,
        /// Elements between copies.
        add_stride: i32,
        /// Elements between copies.
        times_stride: i32,
        /// Words between copies.
        gate_stride: i32,
        /// Words between copies.
        bits_stride: i32,
        /// Whether the bias has one number per element.
        bias_elements: i32,
        /// Range of the bits.
        inside: [f32; 2],
        /// Whether to clamp.
        clamps: i32,
        /// To what.
        clamp: [f32; 2],
    }

    /// A convolution, or its adjoint, as a sum over taps: output position `q` of an axis reads source position
    /// `q · mul + add + i · step` through tap `first + i · every` and lands at `q · out_mul + out_add`.
    ConvArgs {
        /// `[copy][h][w][channels]`.
        x: In<f32>,
        /// `[group][tap][k_padded][c_padded]` (tensor cores) or `[tap][c][out_channels]`.
        weight: In<f32>,
        /// `[copy][out_h][out_w][out_channels]`.
        out: Out<f32>,
        /// After the sums.
        epilogue: EpilogueArgs,
        /// Elements between copies.
        x_stride: i32,
        /// Elements between copies.
        out_stride: i32,
        /// How many.
        copies: i32,
        /// Rows and columns of the source.
        extent: [i32; 2],
        /// Channels of the source, all groups.
        channels: i32,
        /// Of one group.
        c: i32,
        /// Rounded up to whole tiles.
        c_padded: i32,
        /// Channels of the output, all groups.
        out_channels: i32,
        /// Of one group.
        k: i32,
        /// Rounded up to whole tiles.
        k_padded: i32,
        /// Rows and columns that this launch computes.
        grid: [i32; 2],
        /// Rows and columns of the output.
        out_extent: [i32; 2],
        /// Source positions from one output position to the next.
        mul: [i32; 2],
        /// Source position of output position 0 through tap 0.
        add: [i32; 2],
        /// Source positions from one tap to the next.
        step: [i32; 2],
        /// Taps of this launch.
        taps: [i32; 2],
        /// The first of them.
        first: [i32; 2],
        /// From one of them to the next.
        every: [i32; 2],
        /// Output positions from one computed position to the next.
        out_mul: [i32; 2],
        /// The first of them.
        out_add: [i32; 2],
        /// Taps of the whole kernel.
        kernel: [i32; 2],
        /// Whether four channels of the source start at a multiple of 16 bytes.
        aligned: i32,
    }

    /// One copy of one picture.
    CopyArgs {
        /// Key of the picture's random numbers.
        image: u64,
        /// Weight of the copy in its picture's map.
        weight: f64,
        /// Which picture of the chunk.
        item: i32,
        /// Number of the copy's draw.
        sample: u32,
        /// Standard deviation of the noise, or the place on the path.
        amount: f32,
        /// Class explained.
        target: i32,
        /// Copies of the picture so far, this one included.
        count: i32,
        /// Row and column at which the box, or the picture within the mask, begins.
        corner: [i32; 2],
        /// Rows and columns of the box.
        size: [i32; 2],
        /// Padding.
        unused: i32,
    }

    /// How copies differ from their pictures.
    PerturbArgs {
        /// `[item][channel][row][column]`.
        pictures: In<f32>,
        /// Baselines or fills, as the pictures; or other pictures, one per copy.
        others: In<f32>,
        /// One per copy.
        copies: In<CopyArgs>,
        /// Grids, one per copy.
        masks: In<f32>,
        /// Two neighbours of each row of the enlarged grid, then of each column.
        neighbours: In<i32>,
        /// Weight of the second neighbour.
        shares: In<f32>,
        /// Of the random numbers.
        seed: u64,
        /// 0 nothing, 1 noise, 2 path, 3 boxes, 4 masks, 5 other pictures.
        kind: i32,
        /// Channels, rows, columns.
        extent: [i32; 3],
        /// Rows and columns of a grid.
        mask_grid: [i32; 2],
        /// Rows of the enlarged grid.
        mask_rows: i32,
    }

    /// Pixels of copies.
    PixelsArgs {
        /// How.
        perturb: PerturbArgs,
        /// `[copy][row][column][channel]`.
        out: Out<f32>,
        /// Elements between copies.
        out_stride: i32,
    }

    /// The first layer on copies that are made as they are read.
    FirstArgs {
        /// The source, if `conv.x` is null.
        perturb: PerturbArgs,
        /// The convolution; its weight is `[tap][c][out_channels]`.
        conv: ConvArgs,
    }

    /// Running statistics of pictures' signals, in double precision.
    SumArgs {
        /// `[item][channel][row][column]`: the sum, the mean so far, or the largest.
        sums: Out<f64>,
        /// The sum of squared deviations, or the smallest.
        squares: Out<f64>,
        /// One per copy; copies of a picture follow one another.
        copies: In<CopyArgs>,
        /// 0 sum, 1 sum of squares, 2 variance, 3 range.
        statistic: i32,
        /// How many copies.
        count: i32,
    }

    /// A value folded into statistics.
    AggregateArgs {
        /// `[copy][row][column][channel]`.
        x: In<f32>,
        /// Into what.
        sum: SumArgs,
        /// Elements between copies.
        x_stride: i32,
        /// Of the value.
        channels: i32,
        /// Rows times columns.
        plane: i32,
    }

    /// The first layer's adjoint, either stored or folded into statistics.
    LastArgs {
        /// `[copy][h][w][k]`.
        s: In<f32>,
        /// `[tap][c][k]`.
        weight: In<f32>,
        /// `[copy][row][column][c]`, or null.
        out: Out<f32>,
        /// If `out` is null.
        sum: SumArgs,
        /// Elements between copies.
        s_stride: i32,
        /// Elements between copies.
        out_stride: i32,
        /// Rows and columns of the signal.
        extent: [i32; 2],
        /// Its channels.
        k: i32,
        /// Channels of the result, at most four.
        c: i32,
        /// Rows and columns of the result.
        out_extent: [i32; 2],
        /// Of the convolution.
        kernel: [i32; 2],
        /// Of the convolution.
        stride: [i32; 2],
        /// Of the convolution.
        dilation: [i32; 2],
        /// Rows above, columns to the left.
        pad: [i32; 2],
    }

    /// Elementwise functions.
    PointwiseArgs {
        /// First numbers.
        x: In<f32>,
        /// Second numbers.
        y: In<f32>,
        /// Third numbers.
        z: In<f32>,
        /// Bits, or null.
        gate: In<u32>,
        /// Result.
        out: Out<f32>,
        /// Result of `inside`.
        bits: Out<u32>,
        /// Elements between copies.
        x_stride: i32,
        /// Elements between copies.
        y_stride: i32,
        /// Elements between copies.
        z_stride: i32,
        /// Words between copies.
        gate_stride: i32,
        /// Elements between copies.
        out_stride: i32,
        /// Words between copies.
        bits_stride: i32,
        /// Numbers of one copy.
        count: i32,
        /// Channels of one copy.
        channels: i32,
        /// For each operand the channels that read one of its own, or 0 where it has the result's shape.
        group: [i32; 3],
        /// Whether an operand that is repeated has numbers for every position.
        positions: [i32; 3],
        /// Parameters of the function.
        p: [f64; 3],
    }

    /// Windows over feature maps.
    PoolArgs {
        /// What is read: the input, or the signal of an adjoint.
        x: In<f32>,
        /// What is written.
        out: Out<f32>,
        /// Winners that are written, or null.
        winners: Out<u8>,
        /// Winners that are read.
        won: In<u8>,
        /// Winners that are preferred.
        preferred: In<u8>,
        /// Elements between copies.
        x_stride: i32,
        /// Elements between copies.
        out_stride: i32,
        /// Bytes between copies.
        winners_stride: i32,
        /// Bytes between copies.
        won_stride: i32,
        /// Bytes between copies.
        preferred_stride: i32,
        /// Bytes of a winner.
        width: i32,
        /// Channels.
        channels: i32,
        /// Rows and columns of the input.
        extent: [i32; 2],
        /// Rows and columns of the output.
        out_extent: [i32; 2],
        /// Taps.
        kernel: [i32; 2],
        /// Between windows.
        stride: [i32; 2],
        /// Between taps.
        dilation: [i32; 2],
        /// Rows above, columns to the left.
        pad: [i32; 2],
        /// Rows below, columns to the right.
        pad_after: [i32; 2],
        /// Whether padding counts in a mean.
        count_padding: i32,
    }

    /// Numbers moved from one shape to another.
    MoveArgs {
        /// `[copy][row][column][channel]`.
        x: In<f32>,
        /// `[copy][row][column][channel]`.
        out: Out<f32>,
        /// Elements between copies.
        x_stride: i32,
        /// Elements between copies.
        out_stride: i32,
        /// Channels, rows, columns of the source.
        from: [i32; 3],
        /// Channels, rows, columns of the result.
        to: [i32; 3],
        /// Per axis, elements of the source from one element of the result to the next, times `every`.
        step: [i32; 3],
        /// Source of the result's first element, times `every`.
        first: [i32; 3],
        /// Elements of the result from one element of the source to the next.
        every: [i32; 3],
        /// Rows of the matrix as whose columns the source's channels are read.
        groups: i32,
        /// Where a source's channels begin in the result.
        at: i32,
    }

    /// Sums over channels or positions, quantiles, and the search for numbers that are not finite.
    ReduceArgs {
        /// `[copy][row][column][channel]`.
        x: In<f32>,
        /// Weights, one per channel.
        weights: In<f32>,
        /// Result.
        out: Out<f32>,
        /// Result of `above_quantile`; flag of `not_finite`.
        bits: Out<u32>,
        /// Elements between copies.
        x_stride: i32,
        /// Elements between copies.
        weights_stride: i32,
        /// Elements between copies.
        out_stride: i32,
        /// Words between copies.
        bits_stride: i32,
        /// Of the value.
        channels: i32,
        /// Rows times columns.
        plane: i32,
        /// Which quantile.
        q: f64,
    }

    /// Sums over groups of channels and over positions.
    ContractArgs {
        /// `[copy][row][column][channel]`.
        x: In<f32>,
        /// Factors, as `x`; or null.
        y: In<f32>,
        /// One number per sum, `[copy][row][column][channel]`.
        out: Out<f32>,
        /// Elements between copies.
        x_stride: i32,
        /// Elements between copies.
        y_stride: i32,
        /// Elements between copies.
        out_stride: i32,
        /// Of `x`.
        channels: i32,
        /// Channels of one sum.
        group: i32,
        /// Positions of one sum.
        plane: i32,
        /// Of the result.
        out_channels: i32,
    }

    /// Weighted sums over rows and columns.
    ResampleArgs {
        /// `[copy][row][column][channel]`.
        x: In<f32>,
        /// `[copy][row][column][channel]`.
        out: Out<f32>,
        /// Of each row where its terms begin, the number of terms, and each term's source and weight.
        rows: In<f32>,
        /// The same of columns.
        columns: In<f32>,
        /// Elements between copies.
        x_stride: i32,
        /// Elements between copies.
        out_stride: i32,
        /// Channels.
        channels: i32,
        /// Columns of the source.
        from_columns: i32,
        /// Rows and columns of the result.
        extent: [i32; 2],
    }

    /// Standardisation, or softmax, of groups of channels.
    NormArgs {
        /// `[copy][row][column][channel]`; back, the signal.
        x: In<f32>,
        /// Back, the standardised numbers, or null where deviations are constants.
        y: In<f32>,
        /// Back, inverse deviations, `[copy][row][column][group]`.
        scale: In<f32>,
        /// Result.
        out: Out<f32>,
        /// Inverse deviations that are written, or null.
        scales: Out<f32>,
        /// Elements between copies.
        x_stride: i32,
        /// Elements between copies.
        y_stride: i32,
        /// Elements between copies.
        scale_stride: i32,
        /// Elements between copies.
        out_stride: i32,
        /// Of `x`.
        channels: i32,
        /// Channels of a group.
        group: i32,
        /// How many groups.
        groups: i32,
        /// Positions that have one mean.
        plane: i32,
        /// Means of a copy.
        means: i32,
        /// Added to the variance.
        eps: f64,
    }

    /// Scores and the signal with which the backward pass starts.
    HeadArgs {
        /// `[copy][class]`.
        logits: In<f32>,
        /// One per copy.
        copies: In<CopyArgs>,
        /// One per copy.
        scores: Out<f64>,
        /// `[copy][class]`.
        all: Out<f64>,
        /// `[copy][class]`, or null.
        seed: Out<f32>,
        /// Elements between copies.
        logits_stride: i32,
        /// Elements between copies.
        seed_stride: i32,
        /// How many.
        classes: i32,
        /// 0 logit, 1 probability, 2 its logarithm, 3 the logarithm of the others'.
        score: i32,
        /// 1 where a probability is the sigmoid of its own logit, 0 for a softmax.
        sigmoid: i32,
    }

    /// Gradient of a layer's weight.
    WeightArgs {
        /// What the layer read.
        x: In<f32>,
        /// The signal at its output.
        s: In<f32>,
        /// `[copy][c · tap][k]`.
        out: Out<f32>,
        /// Elements between copies.
        x_stride: i32,
        /// Elements between copies.
        s_stride: i32,
        /// Elements between copies.
        out_stride: i32,
        /// Rows and columns of the input.
        extent: [i32; 2],
        /// All channels of the input.
        channels: i32,
        /// Of one group.
        c: i32,
        /// All channels of the output.
        out_channels: i32,
        /// Of one group.
        k: i32,
        /// Rows and columns of the output.
        out_extent: [i32; 2],
        /// Taps.
        kernel: [i32; 2],
        /// Between positions.
        stride: [i32; 2],
        /// Between taps.
        dilation: [i32; 2],
        /// Rows above, columns to the left.
        pad: [i32; 2],
    }

    /// One product of one warp.
    FragmentArgs {
        /// Four words per lane.
        a: In<u32>,
        /// Two words per lane.
        b: In<u32>,
        /// Four numbers per lane.
        c: In<f32>,
        /// Four numbers per lane.
        out: Out<f32>,
        /// 0 TF32, 1 half precision, 2 bfloat16.
        kind: i32,
    }

    /// Numbers on their way to the tensor cores.
    ConversionArgs {
        /// `n` numbers.
        x: In<f32>,
        /// Three words per number.
        out: Out<u32>,
        /// How many.
        n: i32,
    }

    /// A long sum of equal products.
    LongSumArgs {
        /// One number per lane.
        out: Out<f32>,
        /// First factor.
        a: f32,
        /// Second factor.
        b: f32,
        /// Products of eight terms.
        steps: i32,
    }

    /// The first layer, as patches of its pictures see it.
    StemArgs {
        /// `[item][channel][row][column]`.
        pictures: In<f32>,
        /// `[tap][c][k]`.
        weight: In<f32>,
        /// One number per channel of the output, or null.
        bias: In<f32>,
        /// Ends of the clamp after it.
        range: [f64; 2],
        /// Channels, rows, columns of a picture.
        extent: [i32; 3],
        /// Channels, rows, columns of the output.
        out_extent: [i32; 3],
        /// Of the convolution.
        kernel: [i32; 2],
        /// Of the convolution.
        stride: [i32; 2],
        /// Of the convolution.
        dilation: [i32; 2],
        /// Rows above, columns to the left.
        pad: [i32; 2],
    }

    /// Largest magnitudes of the first layer's outputs.
    LargestArgs {
        /// The layer.
        stem: StemArgs,
        /// `[item][block]`.
        out: Out<f32>,
    }

    /// A patch of a picture.
    PlaceArgs {
        /// 1 to brighter pixels, −1 to darker ones.
        sign: f64,
        /// Largest change of an output.
        limit: f64,
        /// The first row, and how many.
        rows: [i32; 2],
        /// The first column, and how many.
        columns: [i32; 2],
        /// Which picture.
        item: i32,
        /// Padding.
        unused: i32,
    }

    /// Moves of patches.
    PatchArgs {
        /// The layer.
        stem: StemArgs,
        /// One per block.
        places: In<PlaceArgs>,
        /// Smallest number of each channel.
        low: In<f64>,
        /// Largest number of each channel.
        high: In<f64>,
        /// As the layer's weight.
        exact: In<f64>,
        /// One number per channel of the output.
        exact_bias: In<f64>,
        /// Scratch: for each patch `2 · elements + numbers`.
        singles: Out<f32>,
        /// Scratch: for each patch `7 · numbers`.
        doubles: Out<f64>,
        /// `[patch][channel][row][column]`, `numbers` per patch.
        pixels: Out<f32>,
        /// Largest change of an output, one per patch.
        changes: Out<f64>,
        /// Whether the patch was moved back, one per patch.
        shrunk: Out<i32>,
        /// Most outputs that depend on one patch.
        elements: i32,
        /// Most numbers of one patch.
        numbers: i32,
        /// Steps.
        iterations: i32,
        /// Halvings of the bisection.
        halvings: i32,
        /// Step size.
        lr: f64,
        /// Decay of Adam's moments.
        beta: [f64; 2],
        /// What Adam adds to its divisor.
        epsilon: f64,
        /// Growth of the penalty, and its end.
        penalty: [f64; 2],
        /// Share of the range from whose ends pixels start away.
        inside: f64,
        /// Share of the limit that may be used.
        used: f64,
    }
}

// SAFETY: as for `CopyArgs`.
unsafe impl bytemuck::NoUninit for PlaceArgs {}
const _: () = assert!(size_of::<PlaceArgs>() == 2 * 8 + 4 * 4 + 2 * 4);

// SAFETY: `CopyArgs` is `repr(C)`, made of integers and floats, and its fields leave no room between or after them, which
// the assertion checks.
unsafe impl bytemuck::NoUninit for CopyArgs {}
const _: () = assert!(size_of::<CopyArgs>() == 8 + 8 + 5 * 4 + 4 * 4 + 4);

#[cfg(test)]
mod tests {
    #[test]
    fn the_header_declares_pointers_and_arrays() {
        let header = super::header();
        for line in ["const float *x;", "u8 *winners;", "int extent[2];", "double p[3];", "EpilogueArgs epilogue;"] {
            assert!(header.contains(line), "{line}");
        }
    }
}
