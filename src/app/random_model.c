/* SPDX-License-Identifier: Apache-2.0 */
/* random_model.c - the tokenizer's numbers for a random model. */
#include "app/random_model.h"

#include "comm/agree.h"
#include "text/tokenizer.h"

hy3_status hy3_random_model_write(MPI_Comm comm, const struct hy3_init_options *options)
{
    hy3_status status = HY3_OK;
    struct hy3_init_options o = *options;
    struct hy3_tokenizer *tokenizer = NULL;

    HY3_AGREE_DONE(comm, hy3_tokenizer_open(o.tokenizer, &tokenizer), "reading the tokenizer");
    o.tokenizer_size = hy3_tokenizer_size(tokenizer);
    o.bos = hy3_tokenizer_specials(tokenizer)->bos;
    o.eos = hy3_tokenizer_specials(tokenizer)->eos;
    o.pad = hy3_tokenizer_specials(tokenizer)->pad;
    HY3_TRY_DONE(hy3_init_write(comm, &o));
done:
    hy3_tokenizer_close(tokenizer);
    return status;
}
