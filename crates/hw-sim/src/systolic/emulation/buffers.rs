//! The buffers between DRAM and the array, and what they see.

use serde::Serialize;

/// What one read buffer saw. Cycles may be negative: prefetching runs ahead of the first demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ReadStream {
    /// First and last cycle in which the array was served.
    pub sram_cycles: [i64; 2],
    /// First and last cycle of DRAM reads.
    pub dram_cycles: [i64; 2],
    /// DRAM reads, in words.
    pub dram_reads: u64,
}

/// What the write buffer saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct WriteStream {
    /// First and last cycle in which the array wrote.
    pub sram_cycles: [i64; 2],
    /// First and last cycle of DRAM writes.
    pub dram_cycles: [i64; 2],
    /// DRAM writes, in words; a line that was drained half full counts as full unless it was the last of its drain.
    pub dram_writes: u64,
}

/// Words a cycle that the tool prefetches before the first demand.
const PREFETCH_WORDS: i64 = 10;
/// Cycles between a buffer's request and its answer, and between a buffer's backing store and the buffer.
pub(super) const LATENCY: i64 = 1;

/// Stall cycles: after the cycle of the first field, time runs the second field late.
pub(super) type Stalls = Vec<(i64, i64)>;

/// Request cycle of the first prefetch of `words` that must end in cycle `end`.
pub(super) fn first_prefetch(end: i64, words: u64, buffer_kb: u64) -> i64 {
    let set = 1024 * buffer_kb / 100;
    let requested = (words.div_ceil(set) * set) as i64;
    end - (requested + PREFETCH_WORDS - 1) / PREFETCH_WORDS + 1
}

pub(super) struct ReadBuffer<'a> {
    stamps: Vec<u32>,
    epoch: u32,
    since_flush: u64,
    capacity: u64,
    buffer_kb: u64,
    words: u64,
    served: Option<[i64; 2]>,
    /// First DRAM cycle, once known, and the request cycles of the prefetch under way.
    dram_start: Option<i64>,
    prefetch: [i64; 2],
    stalls: &'a Stalls,
}

impl<'a> ReadBuffer<'a> {
    pub(super) fn new(space: usize, buffer_kb: u64, stalls: &'a Stalls) -> Self {
        Self {
            stamps: vec![0; space],
            epoch: 1,
            since_flush: 0,
            capacity: 50 * (1024 * buffer_kb / 100),
            buffer_kb,
            words: 0,
            served: None,
            dram_start: None,
            prefetch: [-2, -1],
            stalls,
        }
    }

    #[inline]
    pub(super) fn demand(&mut self, address: u32, cycle: i64) {
        let stamp = &mut self.stamps[address as usize];
        if *stamp != self.epoch {
            *stamp = self.epoch;
            self.since_flush += 1;
            if self.since_flush == self.capacity {
                self.flush(cycle);
            }
        }
    }

    /// Notes that the array was served in a cycle; called after the cycle's demands.
    #[inline]
    pub(super) fn served(&mut self, cycle: i64) {
        self.served = Some([self.served.map_or(cycle, |[first, _]| first), cycle]);
    }

    #[cold]
    fn flush(&mut self, cycle: i64) {
        let cycle = late(self.stalls, cycle);
        if self.dram_start.is_none() {
            let first = self.served.map_or(cycle, |[first, _]| late(self.stalls, first));
            let end = first - 1 - LATENCY;
            self.prefetch = [first_prefetch(end, self.capacity, self.buffer_kb), end];
            self.dram_start = Some(self.prefetch[0] + LATENCY);
        }
        self.words += self.since_flush;
        self.since_flush = 0;
        self.epoch = self.epoch.wrapping_add(1);
        if self.epoch == 0 {
            self.stamps.fill(0);
            self.epoch = 1;
        }
        self.prefetch = [self.prefetch[1] + 1, cycle];
    }

    pub(super) fn finish(mut self) -> ReadStream {
        if self.dram_start.is_none() {
            let end = -1 - LATENCY;
            self.prefetch = [first_prefetch(end, self.since_flush, self.buffer_kb), end];
            self.dram_start = Some(self.prefetch[0] + LATENCY);
        }
        let served = self.served.unwrap_or([0, 0]).map(|cycle| late(self.stalls, cycle) + LATENCY);
        ReadStream {
            sram_cycles: served,
            dram_cycles: [self.dram_start.unwrap_or(0), self.prefetch[1] + LATENCY],
            dram_reads: self.words + self.since_flush,
        }
    }
}

/// When a cycle of an unstalled run really happens.
fn late(stalls: &Stalls, cycle: i64) -> i64 {
    match stalls.partition_point(|&(after, _)| after < cycle) {
        0 => cycle,
        position => cycle + stalls[position - 1].1,
    }
}

/// Lines of `line` words; the half that drains is `size − ⌈size/2⌉` words.
pub(super) struct WriteBuffer {
    line: i64,
    size: i64,
    drain_words: i64,
    free: i64,
    fill: i64,
    lines: i64,
    drained_lines: i64,
    /// Lines that were closed before they were full, oldest first: `(line, words)`.
    short_lines: std::collections::VecDeque<(i64, i64)>,
    drain_end: i64,
    words: i64,
    served: Option<[i64; 2]>,
    dram: Option<[i64; 2]>,
    stalls: Stalls,
}

impl WriteBuffer {
    pub(super) fn new(buffer_kb: u64, cols: u64) -> Self {
        let size = (1024 * buffer_kb) as i64;
        Self {
            line: cols as i64,
            size,
            drain_words: size - (size + 1) / 2,
            free: size,
            fill: 0,
            lines: 0,
            drained_lines: 0,
            short_lines: std::collections::VecDeque::new(),
            drain_end: 0,
            words: 0,
            served: None,
            dram: None,
            stalls: Vec::new(),
        }
    }

    pub(super) fn write(&mut self, cycle: i64, words: i64) {
        let due = cycle + self.stalls.last().map_or(0, |&(_, total)| total);
        let mut now = due;
        for _ in 0..words {
            self.fill += 1;
            self.free -= 1;
            if self.fill == self.line {
                self.lines += 1;
                self.fill = 0;
            }
            if now < self.drain_end {
                if self.free <= 0 {
                    now = self.drain_end;
                }
            } else if self.free < self.size - self.drain_words {
                self.close_line();
                self.drain_end = self.drain(now);
            }
        }
        if now > due {
            let total = now - cycle;
            self.stalls.push((cycle, total));
        }
        self.served = Some([self.served.map_or(now, |[first, _]| first), now]);
    }

    fn close_line(&mut self) {
        if self.fill > 0 {
            self.short_lines.push_back((self.lines, self.fill));
            self.lines += 1;
            self.fill = 0;
        }
    }

    /// Drains up to half a buffer from cycle `start`; the cycle of its last line.
    fn drain(&mut self, start: i64) -> i64 {
        let end = (self.drained_lines + (self.drain_words + self.line - 1) / self.line).min(self.lines);
        let lines = end - self.drained_lines;
        if lines == 0 {
            return start;
        }
        let mut words = lines * self.line;
        while let Some(&(line, fill)) = self.short_lines.front().filter(|&&(line, _)| line < end) {
            self.short_lines.pop_front();
            if line == end - 1 {
                words -= self.line - fill;
            }
        }
        self.words += words;
        self.free += words;
        self.drained_lines = end;
        let last = start + lines - 1;
        self.dram = Some(self.dram.map_or([start, last], |[first, end]| [first.min(start), end.max(last)]));
        last
    }

    pub(super) fn finish(mut self, last_cycle: i64) -> (WriteStream, Stalls) {
        self.close_line();
        let mut cycle = last_cycle + self.stalls.last().map_or(0, |&(_, total)| total);
        while self.drained_lines < self.lines {
            cycle = self.drain(cycle) + 1;
        }
        let stream = WriteStream {
            sram_cycles: self.served.unwrap_or([0, 0]),
            dram_cycles: self.dram.unwrap_or([0, 0]),
            dram_writes: self.words as u64,
        };
        (stream, self.stalls)
    }
}
