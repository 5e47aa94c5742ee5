#include "base/date.h"
#include <stddef.h>

/* Writes v with so many digits at least, and returns what is behind them. */
static char *digits(char *out, uint64_t v, int least) {
    char text[24], *p = text + sizeof text;
    for (; v > 0 || least > 0; v /= 10, least--)
        *--p = (char)('0' + v % 10);
    while (p < text + sizeof text)
        *out++ = *p++;
    return out;
}

/* Days since 1970 to a date: Howard Hinnant's civil_from_days, in whole numbers. Years begin in March, so that the leap
 * day is the last of a year, and 400 of them make an era. */
void cb_date_text(char out[CB_DATE_BYTES], int64_t ms) {
    int64_t days = ms / 86400000, rest = ms % 86400000;
    if (rest < 0) rest += 86400000, days--;
    int64_t z = days + 719468, era = (z >= 0 ? z : z - 146096) / 146097;
    int64_t doe = z - era * 146097, yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;
    int64_t month = mp < 10 ? mp + 3 : mp - 9, year = yoe + era * 400 + (month <= 2);
    const struct {
        int64_t value;
        int least;
        char end;
    } parts[] = {{year < 0 ? -year : year, 4, '-'},
                 {month, 2, '-'},
                 {doy - (153 * mp + 2) / 5 + 1, 2, 'T'},
                 {rest / 3600000, 2, ':'},
                 {rest / 60000 % 60, 2, ':'},
                 {rest / 1000 % 60, 2, '.'},
                 {rest % 1000, 3, 'Z'}};
    if (year < 0) *out++ = '-';
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        out = digits(out, (uint64_t)parts[i].value, parts[i].least);
        *out++ = parts[i].end;
    }
    *out = '\0';
}
