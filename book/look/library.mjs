// Numbers and sentences of the library, which the page is given when it starts: none stands here a second time.

/** Constants by the names that they have in Python. */
export const C = {};

/** Input that cannot be used; the message tells the reader what to do. */
export class Refused extends Error {}
