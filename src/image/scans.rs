//! Checks whether the scans of a JPEG file contain the data that its header promises.
//!
//! Decoders silently fill missing or unreadable data with grey. Here the Huffman codes are read once more, without
//! producing pixels, to find invalid codes, data that end too early, surplus data, restart markers out of order, and
//! missing scans.

/// Most scans that are read; decoders stop there too.
const MOST_SCANS: usize = 100;
/// Codes of up to this many bits are looked up, longer ones are searched.
const LOOKUP: u32 = 9;

/// Codes and their symbols.
#[derive(Clone)]
struct CodeTable {
    /// Indexed by the next [`LOOKUP`] bits: length and symbol; length 0 if the code is longer.
    short: Vec<(u8, u8)>,
    /// Indexed by length: first code, number of codes, position of the first one's symbol.
    long: [(u32, u32, usize); 17],
    symbols: Vec<u8>,
}

impl CodeTable {
    /// From a segment's counts by length and its symbols; also returns the number of bytes read.
    fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let (counts, rest) = bytes.split_first_chunk::<16>()?;
        let total: usize = counts.iter().map(|&n| usize::from(n)).sum();
        let symbols = rest.get(..total)?.to_vec();
        let mut table = Self { short: vec![(0, 0); 1 << LOOKUP], long: [(0, 0, 0); 17], symbols };
        let (mut code, mut at) = (0u32, 0);
        for length in 1..=16u32 {
            let count = u32::from(counts[length as usize - 1]);
            if code + count > 1 << length {
                return None;
            }
            table.long[length as usize] = (code, count, at);
            for i in 0..if length <= LOOKUP { count } else { 0 } {
                let first = ((code + i) << (LOOKUP - length)) as usize;
                let entry = (length as u8, table.symbols[at + i as usize]);
                table.short[first..first + (1 << (LOOKUP - length))].fill(entry);
            }
            at += count as usize;
            code = (code + count) << 1;
        }
        Some((table, 16 + total))
    }
}

/// Bits of one run of data between two markers.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    held: u64,
    count: u32,
}

/// An invalid code, or data that end too early.
struct Broken;

type DecodeResult<T> = std::result::Result<T, Broken>;

impl Bits<'_> {
    fn fill(&mut self) {
        while self.count <= 48 {
            let byte = match self.bytes.get(self.at) {
                Some(&byte) => byte,
                None => break,
            };
            // A stuffed zero follows.
            self.at += if byte == 0xFF { 2 } else { 1 };
            self.held = self.held << 8 | u64::from(byte);
            self.count += 8;
        }
    }

    /// The next bits, without consuming them; zeros beyond the end.
    fn peek(&mut self, n: u32) -> u32 {
        if self.count < n {
            self.fill();
        }
        let bits = if self.count >= n { self.held >> (self.count - n) } else { self.held << (n - self.count) };
        (bits & ((1 << n) - 1)) as u32
    }

    fn take(&mut self, n: u32) -> DecodeResult<u32> {
        if n == 0 {
            return Ok(0);
        }
        let bits = self.peek(n);
        if self.count < n {
            return Err(Broken);
        }
        self.count -= n;
        Ok(bits)
    }

    fn symbol(&mut self, table: &CodeTable) -> DecodeResult<u8> {
        let ahead = self.peek(16);
        let (length, symbol) = table.short[(ahead >> (16 - LOOKUP)) as usize];
        if length > 0 {
            self.take(u32::from(length))?;
            return Ok(symbol);
        }
        for length in LOOKUP + 1..=16 {
            let (first, count, at) = table.long[length as usize];
            let code = ahead >> (16 - length);
            if code >= first && code - first < count {
                self.take(length)?;
                return Ok(table.symbols[at + (code - first) as usize]);
            }
        }
        Err(Broken)
    }

    /// Whether nothing but padding is left.
    fn is_done(&self) -> bool {
        self.at >= self.bytes.len() && self.count < 8
    }
}

#[derive(Clone, Default)]
struct Component {
    id: u8,
    /// Blocks per unit, horizontally and vertically.
    sampling: [usize; 2],
    /// Blocks horizontally and vertically, in whole units.
    blocks: [usize; 2],
    /// Blocks that contain pixels.
    own: [usize; 2],
    /// For each block, the non-zero coefficients, on which refining scans depend.
    set: Vec<u64>,
    /// For each coefficient, the bit at which the last scan stopped; `None` before the first.
    left: Vec<Option<u8>>,
}

struct Scan {
    /// Positions of components, with their tables.
    parts: Vec<(usize, usize, usize)>,
    start: usize,
    end: usize,
    high: u8,
    low: u8,
}

#[derive(Default)]
struct Frame {
    progressive: bool,
    components: Vec<Component>,
    units: [usize; 2],
    dc: [Option<CodeTable>; 4],
    ac: [Option<CodeTable>; 4],
    restart: usize,
}

/// Whether the data of the JPEG file `bytes` are complete. Unsupported kinds, and files without an end marker, count as
/// complete.
pub(super) fn are_whole(bytes: &[u8]) -> bool {
    read(bytes).unwrap_or(true)
}

fn read(bytes: &[u8]) -> Option<bool> {
    let mut frame = Frame::default();
    let mut scans = 0;
    let mut at = 2;
    while let Some(&[mark, kind]) = bytes.get(at..at + 2) {
        if mark != 0xFF {
            at += 1;
            continue;
        }
        match kind {
            0xFF => at += 1,
            0xD9 => break,
            0x00 | 0x01 | 0xD0..=0xD8 => at += 2,
            _ => {
                let length = usize::from(u16::from_be_bytes([*bytes.get(at + 2)?, *bytes.get(at + 3)?]));
                let body = bytes.get(at + 4..at + 2 + length)?;
                at += 2 + length;
                match kind {
                    0xC0..=0xC2 => frame.begin(body, kind == 0xC2)?,
                    // Lossless and arithmetic kinds.
                    0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF => return None,
                    0xC4 => frame.tables(body)?,
                    0xDD => frame.restart = usize::from(u16::from_be_bytes([*body.first()?, *body.get(1)?])),
                    0xDA => {
                        scans += 1;
                        if scans > MOST_SCANS {
                            return None;
                        }
                        let scan = frame.scan(body)?;
                        match frame.holds(&scan, &bytes[at..])? {
                            Some(end) => at += end,
                            None => return Some(false),
                        }
                    }
                    _ => {}
                }
            }
        }
    }
    let whole = |left: &Option<u8>| *left == Some(0);
    let wanted = |c: &Component| if frame.progressive { c.left.iter().all(whole) } else { whole(&c.left[0]) };
    (!frame.components.is_empty()).then(|| frame.components.iter().all(wanted))
}

/// Data between two restart markers.
struct RestartInterval<'a> {
    bytes: &'a [u8],
    /// The preceding marker.
    marker: Option<u8>,
    /// Their end, relative to the scan's first byte.
    end: usize,
}

/// Splits a scan's data at its restart markers; any other marker ends it.
fn runs(bytes: &[u8]) -> impl Iterator<Item = RestartInterval<'_>> {
    let (mut start, mut at, mut marker, mut over) = (0, 0, None, false);
    std::iter::from_fn(move || {
        while !over {
            let found = bytes[at..].iter().position(|&b| b == 0xFF).map_or(bytes.len(), |n| at + n);
            // Fill bytes before a marker.
            let next = found + bytes[found..].iter().take_while(|&&b| b == 0xFF).count();
            let kind = bytes.get(next);
            if kind == Some(&0) {
                at = next + 1;
                continue;
            }
            let run = RestartInterval { bytes: &bytes[start..found], marker, end: found };
            match kind {
                Some(&kind @ 0xD0..=0xD7) => (start, at, marker) = (next + 1, next + 1, Some(kind)),
                _ => over = true,
            }
            return Some(run);
        }
        None
    })
}

impl Frame {
    fn begin(&mut self, body: &[u8], progressive: bool) -> Option<()> {
        let &[8, h1, h0, w1, w0, n, ref rest @ ..] = body else { return None };
        let size = [[w1, w0], [h1, h0]].map(|bytes| usize::from(u16::from_be_bytes(bytes)));
        if size.contains(&0) || rest.len() < 3 * usize::from(n) || !self.components.is_empty() {
            return None;
        }
        let parts: Vec<(u8, [usize; 2])> = rest
            .chunks_exact(3)
            .take(usize::from(n))
            .map(|part| (part[0], [usize::from(part[1] >> 4), usize::from(part[1] & 15)]))
            .collect();
        if parts.iter().any(|(_, s)| s.iter().any(|s| !(1..=4).contains(s))) {
            return None;
        }
        let most = [0, 1].map(|a| parts.iter().map(|(_, s)| s[a]).max().unwrap_or(1));
        self.progressive = progressive;
        self.units = [0, 1].map(|a| size[a].div_ceil(8 * most[a]));
        for (id, sampling) in parts {
            let blocks = [0, 1].map(|a| self.units[a] * sampling[a]);
            let own = [0, 1].map(|a| (size[a] * sampling[a]).div_ceil(8 * most[a]));
            let set = vec![0; if progressive { blocks[0] * blocks[1] } else { 0 }];
            self.components.push(Component { id, sampling, blocks, own, set, left: vec![None; 64] });
        }
        Some(())
    }

    fn tables(&mut self, mut body: &[u8]) -> Option<()> {
        while let Some((&place, rest)) = body.split_first() {
            let (table, length) = CodeTable::read(rest)?;
            let tables = if place >> 4 == 0 { &mut self.dc } else { &mut self.ac };
            *tables.get_mut(usize::from(place & 15))? = Some(table);
            body = &rest[length..];
        }
        Some(())
    }

    fn scan(&self, body: &[u8]) -> Option<Scan> {
        let (&n, rest) = body.split_first()?;
        let (parts, rest) = rest.split_at_checked(2 * usize::from(n))?;
        let &[start, end, bits, ..] = rest else { return None };
        let part = |part: &[u8]| {
            let at = self.components.iter().position(|c| c.id == part[0])?;
            Some((at, usize::from(part[1] >> 4), usize::from(part[1] & 15)))
        };
        let parts = parts.chunks_exact(2).map(part).collect::<Option<Vec<_>>>()?;
        let (start, end) = if self.progressive { (usize::from(start), usize::from(end)) } else { (0, 63) };
        let (high, low) = if self.progressive { (bits >> 4, bits & 15) } else { (0, 0) };
        let sound = start <= end && end < 64 && (start > 0 || end == 0 || !self.progressive) && low < 14;
        (sound && !parts.is_empty() && (start == 0 || parts.len() == 1)).then_some(Scan {
            parts,
            start,
            end,
            high,
            low,
        })
    }

    /// Reads a scan's data at the start of `bytes`: their end, if they are complete. `None` if its tables are missing.
    fn holds(&mut self, scan: &Scan, bytes: &[u8]) -> Option<Option<usize>> {
        let single = match scan.parts[..] {
            [(at, _, _)] => Some(self.components[at].own),
            _ => None,
        };
        let units = single.unwrap_or(self.units);
        let total = units[0] * units[1];
        let every = if self.restart == 0 { total } else { self.restart };
        let (wanted, mut end) = (total.div_ceil(every), 0);
        if runs(bytes).take(wanted + 1).count() != wanted {
            return Some(None);
        }
        for &(at, _, _) in &scan.parts {
            for left in &mut self.components[at].left[scan.start..=scan.end] {
                *left = Some(scan.low);
            }
        }
        for (i, run) in runs(bytes).enumerate() {
            if i > 0 && run.marker != Some(0xD0 + ((i - 1) % 8) as u8) {
                return Some(None);
            }
            end = run.end;
            let mut bits = Bits { bytes: run.bytes, at: 0, held: 0, count: 0 };
            let mut end_of_band = 0u32;
            for unit in i * every..total.min((i + 1) * every) {
                let [x, y] = [unit % units[0], unit / units[0]];
                for &(at, dc, ac) in &scan.parts {
                    let sampling = if single.is_some() { [1, 1] } else { self.components[at].sampling };
                    for dy in 0..sampling[1] {
                        for dx in 0..sampling[0] {
                            let (dc, ac) = (self.dc.get(dc), self.ac.get(ac));
                            let tables = (dc.and_then(Option::as_ref), ac.and_then(Option::as_ref));
                            let component = &mut self.components[at];
                            let place = (y * sampling[1] + dy) * component.blocks[0] + x * sampling[0] + dx;
                            let read = if self.progressive {
                                progressive(&mut bits, scan, tables, component.set.get_mut(place)?, &mut end_of_band)?
                            } else {
                                sequential(&mut bits, tables.0?, tables.1?)
                            };
                            if read.is_err() {
                                return Some(None);
                            }
                        }
                    }
                }
            }
            if !bits.is_done() || end_of_band > 0 {
                return Some(None);
            }
        }
        Some(Some(end))
    }
}

fn sequential(bits: &mut Bits, dc: &CodeTable, ac: &CodeTable) -> DecodeResult<()> {
    let length = bits.symbol(dc)?;
    bits.take(u32::from(length.min(16)))?;
    let mut k = 1;
    while k < 64 {
        let symbol = bits.symbol(ac)?;
        let (run, length) = (usize::from(symbol >> 4), u32::from(symbol & 15));
        match (run, length) {
            (15, 0) => k += 16,
            (_, 0) => break,
            _ => {
                k += run + 1;
                bits.take(length)?;
            }
        }
    }
    if k > 64 { Err(Broken) } else { Ok(()) }
}

/// Reads one block of a progressive scan. `None` if a table is missing.
fn progressive(
    bits: &mut Bits,
    scan: &Scan,
    (dc, ac): (Option<&CodeTable>, Option<&CodeTable>),
    set: &mut u64,
    end_of_band: &mut u32,
) -> Option<DecodeResult<()>> {
    let refines = scan.high > 0;
    Some(match (scan.start, refines) {
        (0, false) => bits.symbol(dc?).and_then(|length| bits.take(u32::from(length.min(16))).map(drop)),
        (0, true) => bits.take(1).map(drop),
        (_, false) => band(bits, scan, ac?, set, end_of_band),
        (_, true) => refined_band(bits, scan, ac?, set, end_of_band),
    })
}

fn band(bits: &mut Bits, scan: &Scan, ac: &CodeTable, set: &mut u64, end_of_band: &mut u32) -> DecodeResult<()> {
    if *end_of_band > 0 {
        *end_of_band -= 1;
        return Ok(());
    }
    let mut k = scan.start;
    while k <= scan.end {
        let symbol = bits.symbol(ac)?;
        let (run, length) = (u32::from(symbol >> 4), u32::from(symbol & 15));
        match (run, length) {
            (15, 0) => k += 16,
            (_, 0) => {
                *end_of_band = (1 << run) - 1 + bits.take(run)?;
                return Ok(());
            }
            _ => {
                k += run as usize;
                if k > scan.end {
                    return Err(Broken);
                }
                bits.take(length)?;
                *set |= 1 << k;
                k += 1;
            }
        }
    }
    Ok(())
}

fn refined_band(
    bits: &mut Bits,
    scan: &Scan,
    ac: &CodeTable,
    set: &mut u64,
    end_of_band: &mut u32,
) -> DecodeResult<()> {
    let mut k = scan.start;
    if *end_of_band == 0 {
        while k <= scan.end {
            let symbol = bits.symbol(ac)?;
            let (mut run, length) = (u32::from(symbol >> 4), u32::from(symbol & 15));
            let mut new = false;
            match (run, length) {
                (15, 0) => {}
                (_, 0) => {
                    *end_of_band = (1 << run) + bits.take(run)?;
                    break;
                }
                (_, 1) => {
                    bits.take(1)?;
                    new = true;
                }
                _ => return Err(Broken),
            }
            // Skips `run` zero coefficients; each non-zero one has a bit.
            while k <= scan.end {
                if *set >> k & 1 == 1 {
                    bits.take(1)?;
                } else if run == 0 {
                    break;
                } else {
                    run -= 1;
                }
                k += 1;
            }
            if new {
                if k > scan.end {
                    return Err(Broken);
                }
                *set |= 1 << k;
            }
            k += 1;
        }
    }
    if *end_of_band > 0 {
        let rest = (*set >> k.min(63)) & (u64::MAX >> (63 - scan.end + k.min(63)));
        let refined = if k > scan.end { 0 } else { rest.count_ones() };
        for _ in 0..refined {
            bits.take(1)?;
        }
        *end_of_band -= 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_end_at_markers() {
        let bytes = [1, 0xFF, 0, 2, 0xFF, 0xFF, 0xD0, 3, 0xFF, 0xFF, 0, 4, 0xFF, 0xD1, 0xFF, 0xD9, 5];
        let found: Vec<_> = runs(&bytes).map(|run| (run.bytes, run.marker, run.end)).collect();
        let [one, two, three] = [&bytes[..4], &bytes[7..12], &bytes[14..14]];
        assert_eq!(found, [(one, None, 4), (two, Some(0xD0), 12), (three, Some(0xD1), 14)]);
        assert_eq!(runs(&[]).map(|run| run.end).collect::<Vec<_>>(), [0]);
        assert_eq!(runs(&[7, 0xFF]).map(|run| run.end).collect::<Vec<_>>(), [1]);
    }

    /// If every byte were read twice, this would take days.
    #[test]
    fn a_long_row_of_fill_bytes_is_looked_at_once() {
        for last in [0, 0xD9] {
            let mut bytes = vec![0xFF; 1 << 24];
            bytes.push(last);
            assert_eq!(runs(&bytes).count(), 1);
        }
    }

    /// However many markers there are, only as many as the picture needs are counted.
    #[test]
    fn more_runs_than_a_picture_has_are_not_gone_through() {
        let mut frame = Frame { restart: 1, ..Frame::default() };
        frame.begin(&[8, 0, 8, 0, 16, 1, 1, 0x11, 0], false).unwrap();
        let scan = frame.scan(&[1, 1, 0, 0, 63, 0]).unwrap();
        let markers: Vec<u8> = (0..1 << 20).flat_map(|i| [0xFF, 0xD0 + (i % 8) as u8]).collect();
        assert_eq!(frame.holds(&scan, &markers), Some(None));
    }
}
