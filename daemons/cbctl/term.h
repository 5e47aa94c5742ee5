/* The terminal as a canvas: raw keys and the other screen, and everything as it was before on any way out. */
#ifndef CBCTL_TERM_H
#define CBCTL_TERM_H

#include <stdbool.h>
#include <stdint.h>

enum cbctl_key { KEY_NONE = 0, KEY_UP = 256, KEY_DOWN, KEY_PAGE_UP, KEY_PAGE_DOWN, KEY_HOME, KEY_END, KEY_ENDED };

/* False: standard input and output are not both a terminal. Once a process. */
bool cbctl_term_open(void);
/* Also done at exit(), by signals that end the process, and while it is stopped. */
void cbctl_term_close(void);
/* Its size now, 80x24 where nobody knows. */
void cbctl_term_size(unsigned *columns, unsigned *rows);
/* Waits for a key, for fd to become readable, for another size, or ms (-1 = for ever). What is there of keys is given
 * one by one by cbctl_term_key(). True: everything is to be drawn anew. */
bool cbctl_term_wait(int fd, int64_t ms);
/* The next key: a character, or one of the above; KEY_ENDED: nobody is at the keyboard any more. */
int cbctl_term_key(void);

#endif
