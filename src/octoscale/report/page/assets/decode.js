// Columns of numbers as report/page/columns.py packs them: base64 of deflated little-endian typed arrays.

const ARRAYS = {
  i8: Int8Array,
  u8: Uint8Array,
  i16: Int16Array,
  u16: Uint16Array,
  i32: Int32Array,
  f32: Float32Array,
  f64: Float64Array,
};

/** The codes of columns.py's logarithms: no value, 0, infinity. */
const ABSENT = -32768,
  ZERO = -32000,
  INFINITE = 32767;

function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

/** Low bytes, then high bytes -> 16-bit numbers. */
function joinPlanes(bytes) {
  const half = bytes.length / 2,
    joined = new Uint8Array(bytes.length);
  for (let i = 0; i < half; i++) {
    joined[2 * i] = bytes[i];
    joined[2 * i + 1] = bytes[half + i];
  }
  return joined.buffer;
}

/** A column as it was packed, logarithms turned back into numbers. */
async function unpack(column) {
  const kind = ARRAYS[column.type];
  let buffer = await inflate(bytesOf(column.data));
  if (kind.BYTES_PER_ELEMENT === 2) buffer = joinPlanes(new Uint8Array(buffer));
  const values = new kind(buffer);
  if (column.row) {
    for (let i = 0; i < values.length; i++) if (i % column.row) values[i] += values[i - 1];
  }
  return column.octave ? fromLogarithms(values, column.octave) : values;
}

function fromLogarithms(codes, octave) {
  const numbers = new Float32Array(codes.length);
  const isShare = codes instanceof Uint8Array;
  for (let i = 0; i < codes.length; i++) {
    const code = codes[i];
    if (isShare) numbers[i] = code ? 2 ** ((code - 255) / octave) : 0;
    else if (code === ABSENT) numbers[i] = NaN;
    else if (code === INFINITE) numbers[i] = Infinity;
    else numbers[i] = code === ZERO ? 0 : 2 ** (code / octave);
  }
  return numbers;
}

const isColumn = (value) =>
  value !== null && typeof value === "object" && typeof value.data === "string" && value.type in ARRAYS;

/** The same object, each packed column in it replaced by its typed array. */
async function unpackAll(value) {
  if (isColumn(value)) return unpack(value);
  if (Array.isArray(value)) return Promise.all(value.map(unpackAll));
  if (value === null || typeof value !== "object") return value;
  const entries = await Promise.all(Object.entries(value).map(async ([name, each]) => [name, await unpackAll(each)]));
  return Object.fromEntries(entries);
}
